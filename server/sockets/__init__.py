"""Socket.IO namespaces, and the pipeline of guards in front of their handlers."""

from server.sockets.clients import JoinedClient
from server.sockets.context import ClientListener, NamespaceContext, SocketsConfig
from server.sockets.guards import Verifier
from server.sockets.market import MarketNamespace
from server.sockets.namespace import GuardedNamespace
from server.sockets.pipeline import ApplicationGuard, Call, Proceed, Reply, Route
from server.sockets.reporting import ConnectionReports, UserReports
from server.sockets.session import SessionNamespace

__all__ = [
    "ApplicationGuard",
    "Call",
    "ClientListener",
    "ConnectionReports",
    "GuardedNamespace",
    "JoinedClient",
    "MarketNamespace",
    "NamespaceContext",
    "Proceed",
    "Reply",
    "Route",
    "SessionNamespace",
    "SocketsConfig",
    "UserReports",
    "Verifier",
]
