"""Who and what is in use over all nodes: users, sessions and topics, their events, and wills."""
