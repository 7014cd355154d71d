"""Occupancy, wills and the queue of hooks over all nodes, in Redis."""
