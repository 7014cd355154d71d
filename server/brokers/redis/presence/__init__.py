"""Presence in sessions over all nodes, kept in Redis."""
