"""Floorcast's server."""
