"""Transport: the one place that knows what is inside the engines."""

from server.transport.admission import Admission
from server.transport.config import MAX_REFUSED, SOCKET_PATH, TransportConfig
from server.transport.connection import BROKE_PROTOCOL, SENT_AWAY, Connection
from server.transport.quiet import HTTP_LOGGER
from server.transport.server import Accepted, ConnectionRefused, SocketServer

__all__ = [
    "BROKE_PROTOCOL",
    "HTTP_LOGGER",
    "MAX_REFUSED",
    "SENT_AWAY",
    "SOCKET_PATH",
    "Accepted",
    "Admission",
    "Connection",
    "ConnectionRefused",
    "SocketServer",
    "TransportConfig",
]
