"""Feeds that read other systems, against the real programs."""
