"""What all nodes know together: connections, users and figures."""
