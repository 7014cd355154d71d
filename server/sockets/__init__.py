"""Socket.IO namespaces, and the pipeline of guards in front of their handlers."""

from server.sockets.context import NamespaceContext, SocketsConfig
from server.sockets.market import MarketNamespace
from server.sockets.namespace import GuardedNamespace
from server.sockets.session import SessionNamespace

__all__ = [
    "GuardedNamespace",
    "MarketNamespace",
    "NamespaceContext",
    "SessionNamespace",
    "SocketsConfig",
]
