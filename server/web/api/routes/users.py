"""Users: notify them, find them, disconnect them, on whatever node they are."""

from typing import Annotated

from pydantic import Field

from client_sdk.contract import Scope
from server.ports import Occupancy
from server.services import (
    ClusterQueries,
    ConnectionInfo,
    DisconnectUser,
    FindConnections,
    Notifications,
)
from server.web.api.endpoints import Answer, AnyEndpoint, ApiCall, ClusterAnswer, Endpoint
from server.web.api.reading import ApiRequest, JsonObject
from server.web.api.routes.connections import DisconnectAnswer, GoodbyeFields, UserId

_MAX_CONNECTIONS = 1_000


class NotifyRequest(ApiRequest):
    """A notice for all devices of a user."""

    user: UserId
    event: Annotated[str, Field(min_length=1, max_length=128)]
    data: JsonObject = Field(default_factory=dict)
    critical: bool = Field(
        default=False, description="deliver it again until a device has acknowledged it"
    )
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="a notice with a known id is not sent again"
    )


class NotifyAnswer(Answer):
    """What was sent."""

    id: str
    reached: int | None = Field(
        default=None, description="devices it was written to; missing with several nodes"
    )


class UserRequest(ApiRequest):
    """One user of the token's org."""

    user: UserId


class UserAnswer(ClusterAnswer):
    """A user over all nodes; one who was never here is merely not online."""

    user: str
    online: bool
    connections: list[ConnectionInfo]
    sessions: list[str]
    topics: list[str]
    last_seen: int | None = Field(
        default=None,
        description="when the user's last connection ended, in ms since 1970; missing while there"
        " is one, and if it is unknown",
    )


class DisconnectRequest(GoodbyeFields):
    """End all connections of a user."""

    user: UserId


class UserRoutes:
    """The endpoints of users."""

    def __init__(
        self, cluster: ClusterQueries, notifications: Notifications, occupancy: Occupancy
    ) -> None:
        self._cluster = cluster
        self._notifications = notifications
        self._occupancy = occupancy

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """All endpoints of this room."""
        return (
            Endpoint(
                "POST",
                "/users/{user}/notify",
                Scope.ADMIN,
                "Notify a user",
                NotifyRequest,
                NotifyAnswer,
                self._notify,
                is_audited=True,
            ),
            Endpoint(
                "GET",
                "/users/{user}",
                Scope.ADMIN,
                "Find a user",
                UserRequest,
                UserAnswer,
                self._find,
            ),
            Endpoint(
                "POST",
                "/users/{user}/disconnect",
                Scope.ADMIN,
                "Disconnect a user",
                DisconnectRequest,
                DisconnectAnswer,
                self._disconnect,
                is_audited=True,
            ),
        )

    async def _notify(self, call: ApiCall, request: NotifyRequest) -> NotifyAnswer:
        result = await self._notifications.notify(
            call.principal.org,
            request.user,
            request.event,
            request.data,
            critical=request.critical,
            identifier=request.id or call.idempotency_key,
        )
        return NotifyAnswer(id=result.id, reached=result.reached)

    async def _find(self, call: ApiCall, request: UserRequest) -> UserAnswer:
        found = await self._cluster.find_connections(
            FindConnections(call.principal.org, request.user, limit=_MAX_CONNECTIONS)
        )
        last_seen = None
        if not found.value:
            last_seen = await self._occupancy.last_seen((call.principal.org, request.user))
        topics = {each.topic for one in found.value for each in one.subscriptions}
        return UserAnswer(
            user=request.user,
            online=bool(found.value),
            connections=list(found.value),
            sessions=sorted({each for one in found.value for each in one.sessions}),
            topics=sorted(topics),
            last_seen=last_seen,
            incomplete=list(found.incomplete),
        )

    async def _disconnect(self, call: ApiCall, request: DisconnectRequest) -> DisconnectAnswer:
        closed = await self._cluster.disconnect(
            DisconnectUser(
                call.principal.org,
                request.user,
                request.code,
                request.message,
                request.reconnect,
            )
        )
        return DisconnectAnswer(closed=closed.value, incomplete=list(closed.incomplete))
