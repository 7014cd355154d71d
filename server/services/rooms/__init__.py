"""Rooms of the application's own namespaces."""
