"""Limits: token buckets, event rates, open connections, and the keys they count."""
