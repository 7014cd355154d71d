"""Plain HTTP: health, the demo console, and the headers of every response."""

from server.web.console import add_console
from server.web.headers import SERVER_NAME, add_headers
from server.web.health import add_health
from server.web.malformed import shape_errors, shape_malformed_requests

__all__ = [
    "SERVER_NAME",
    "add_console",
    "add_headers",
    "add_health",
    "shape_errors",
    "shape_malformed_requests",
]
