"""Limits: token buckets, events, connections, and the keys they are counted under."""
