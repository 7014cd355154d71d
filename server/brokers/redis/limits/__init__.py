"""Limits counted over all nodes, in Redis."""
