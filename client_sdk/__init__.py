"""Floorcast's client side; for now the contract that it shares with the server."""

__version__ = "0.1.0"
