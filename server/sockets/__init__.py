"""Sockets: the namespaces, and the one pipeline of guards before their handlers."""

from server.sockets.context import Floor, SocketsConfig
from server.sockets.market import MarketNamespace
from server.sockets.namespace import FloorNamespace
from server.sockets.recovery import Crossing
from server.sockets.session import SessionNamespace

__all__ = [
    "Crossing",
    "Floor",
    "FloorNamespace",
    "MarketNamespace",
    "SessionNamespace",
    "SocketsConfig",
]
