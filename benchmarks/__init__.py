"""Measurements side by side with other servers; never run as tests."""
