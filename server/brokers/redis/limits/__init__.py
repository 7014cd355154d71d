"""Connection limits counted over all nodes, in Redis."""
