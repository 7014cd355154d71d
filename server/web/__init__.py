"""Web: plain HTTP beside the sockets."""

from server.web.console import add_console
from server.web.health import add_health

__all__ = ["add_console", "add_health"]
