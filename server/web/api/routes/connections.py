"""Connections, nodes and figures, over all nodes."""

from collections import Counter
from typing import Annotated

from pydantic import Field

from client_sdk.contract import SESSION_ID_PATTERN, ErrorCode, Scope
from server.services import (
    ClusterQueries,
    ConnectionInfo,
    DisconnectConnection,
    FindConnections,
    NodeInfo,
)
from server.web.api.endpoints import AnyEndpoint, ApiCall, ClusterAnswer, Endpoint
from server.web.api.errors import HttpError
from server.web.api.paging import Cursor, Limit
from server.web.api.reading import ApiRequest
from server.web.api.routes.market import TopicName

UserId = Annotated[str, Field(min_length=1, max_length=128)]


class GoodbyeFields(ApiRequest):
    """How a connection ends."""

    code: Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$")] = Field(
        default=ErrorCode.AUTH_FORBIDDEN.value, description="what the `goodbye` carries"
    )
    message: Annotated[str, Field(max_length=500)] = "disconnected by the operator"
    reconnect: bool = Field(default=False, description="whether clients should come back")


class DisconnectAnswer(ClusterAnswer):
    """How many connections there were; a client in two namespaces has two."""

    closed: int


class ConnectionsRequest(ApiRequest):
    """The connections of the token's org; each filter narrows them."""

    user: UserId | None = None
    topic: TopicName | None = None
    session: Annotated[str, Field(pattern=SESSION_ID_PATTERN)] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class ConnectionsAnswer(ClusterAnswer):
    """One page of connections."""

    connections: list[ConnectionInfo]
    next_cursor: str | None = None


class ConnectionRequest(ApiRequest):
    """One connection."""

    connection_id: Annotated[str, Field(min_length=1, max_length=128)]


class ConnectionAnswer(ClusterAnswer):
    """One connection."""

    connection: ConnectionInfo


class DisconnectConnectionRequest(ConnectionRequest, GoodbyeFields):
    """End one connection."""


class NoRequest(ApiRequest):
    """Nothing to ask for."""


class NodesAnswer(ClusterAnswer):
    """All nodes; several workers of one server are several nodes."""

    nodes: list[NodeInfo]


class StatsAnswer(ClusterAnswer):
    """What all nodes do together."""

    nodes: int
    connections: int = Field(description="connections of the token's org")
    users: int = Field(description="users of the token's org; one on two nodes counts twice")
    figures: dict[str, int] = Field(
        description="the sums of the nodes' figures, whatever the org: docs/metrics.md"
    )
    refusals: dict[str, int] = Field(description="refused requests by code, whatever the org")


class ConnectionRoutes:
    """The endpoints of connections and nodes."""

    def __init__(self, cluster: ClusterQueries) -> None:
        self._cluster = cluster

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """All endpoints of this room."""
        return (
            Endpoint(
                "GET",
                "/connections",
                Scope.ADMIN,
                "List connections",
                ConnectionsRequest,
                ConnectionsAnswer,
                self._connections,
            ),
            Endpoint(
                "GET",
                "/connections/{connection_id}",
                Scope.ADMIN,
                "Look up a connection",
                ConnectionRequest,
                ConnectionAnswer,
                self._connection,
            ),
            Endpoint(
                "POST",
                "/connections/{connection_id}/disconnect",
                Scope.ADMIN,
                "Disconnect a connection",
                DisconnectConnectionRequest,
                DisconnectAnswer,
                self._disconnect,
                is_audited=True,
            ),
            Endpoint(
                "GET", "/nodes", Scope.ADMIN, "List the nodes", NoRequest, NodesAnswer, self._nodes
            ),
            Endpoint(
                "GET",
                "/stats",
                Scope.ADMIN,
                "Read the figures",
                NoRequest,
                StatsAnswer,
                self._stats,
            ),
        )

    async def _connections(self, call: ApiCall, request: ConnectionsRequest) -> ConnectionsAnswer:
        found = await self._cluster.find_connections(
            FindConnections(
                call.principal.org,
                request.user,
                request.topic,
                request.session,
                request.cursor or "",
                # One more shows if there is another page.
                request.limit + 1,
            )
        )
        page = found.value[: request.limit]
        has_more = len(found.value) > request.limit
        return ConnectionsAnswer(
            connections=list(page),
            next_cursor=page[-1].connection_id if has_more else None,
            incomplete=list(found.incomplete),
        )

    async def _connection(self, call: ApiCall, request: ConnectionRequest) -> ConnectionAnswer:
        found = await self._cluster.find_connection(call.principal.org, request.connection_id)
        if found.value is None:
            if found.incomplete:
                raise HttpError(503, f"not found, but {len(found.incomplete)} nodes did not answer")
            raise HttpError(404, "there is no such connection")
        return ConnectionAnswer(connection=found.value, incomplete=list(found.incomplete))

    async def _disconnect(
        self, call: ApiCall, request: DisconnectConnectionRequest
    ) -> DisconnectAnswer:
        closed = await self._cluster.disconnect(
            DisconnectConnection(
                call.principal.org,
                request.connection_id,
                request.code,
                request.message,
                request.reconnect,
            )
        )
        return DisconnectAnswer(closed=closed.value, incomplete=list(closed.incomplete))

    async def _nodes(self, call: ApiCall, request: NoRequest) -> NodesAnswer:
        found = await self._cluster.nodes(call.principal.org)
        return NodesAnswer(nodes=list(found.value), incomplete=list(found.incomplete))

    async def _stats(self, call: ApiCall, request: NoRequest) -> StatsAnswer:
        found = await self._cluster.nodes(call.principal.org)
        figures: Counter[str] = Counter()
        refusals: Counter[str] = Counter()
        for node in found.value:
            figures.update(node.figures)
            refusals.update(node.refusals)
        # Every node counts the sessions of all.
        figures["sessions"] = max((each.figures["sessions"] for each in found.value), default=0)
        return StatsAnswer(
            nodes=len(found.value),
            connections=sum(each.connections for each in found.value),
            users=sum(each.users for each in found.value),
            figures=dict(figures),
            refusals=dict(refusals),
            incomplete=list(found.incomplete),
        )
