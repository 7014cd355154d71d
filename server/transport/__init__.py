"""Transport: Socket.IO and Engine.IO connections over python-socketio and aiohttp."""

from server.transport.admission import Admission
from server.transport.config import MAX_REFUSED, SOCKET_PATH, TransportConfig
from server.transport.connection import Connection
from server.transport.handshake import HandshakeProtocols
from server.transport.namespaces import NamespaceHandler, stock_namespace
from server.transport.overlap import OrderKeys
from server.transport.quiet import HTTP_LOGGER
from server.transport.refusals import RefusalLog
from server.transport.server import Accepted, ConnectionRefused, SocketServer

__all__ = [
    "HTTP_LOGGER",
    "MAX_REFUSED",
    "SOCKET_PATH",
    "Accepted",
    "Admission",
    "Connection",
    "ConnectionRefused",
    "HandshakeProtocols",
    "NamespaceHandler",
    "OrderKeys",
    "RefusalLog",
    "SocketServer",
    "TransportConfig",
    "stock_namespace",
]
