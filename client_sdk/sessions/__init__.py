"""Shared sessions and notifications."""
