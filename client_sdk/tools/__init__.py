"""The commands of `floorcast` that work with a running server; they need the client alone."""

from client_sdk.tools.commands import NAMES, add_commands

__all__ = ["NAMES", "add_commands"]
