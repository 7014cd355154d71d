"""Connection state recovery from one node to another, over Redis."""
