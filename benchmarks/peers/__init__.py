"""The servers that are measured; each prints its port, then answers commands."""
