"""Logs in Redis: written by publishers, followed by nodes, read to fill gaps."""
