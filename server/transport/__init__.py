"""Transport: the one place that knows what is inside the engines."""

from server.transport.admission import Admission
from server.transport.config import TransportConfig
from server.transport.connection import Connection
from server.transport.server import Accepted, Refused, SocketServer

__all__ = ["Accepted", "Admission", "Connection", "Refused", "SocketServer", "TransportConfig"]
