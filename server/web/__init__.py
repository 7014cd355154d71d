"""Plain HTTP endpoints: health and the demo console."""

from server.web.console import add_console
from server.web.health import add_health

__all__ = ["add_console", "add_health"]
