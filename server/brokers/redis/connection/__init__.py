"""The connection of a node to Redis: addresses, pipelines, keys, leases."""
