"""Shared sessions and notices."""
