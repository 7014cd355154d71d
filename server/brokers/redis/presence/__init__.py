"""Presence in sessions over all nodes, stored in Redis."""
