"""Reports the clients of this node to occupancy and to the hooks."""

from client_sdk.contract import HookType
from server.core.disconnects import DisconnectReason
from server.core.occupancy.subjects import user_subject
from server.services import HookEvents, LocalOccupancy
from server.sockets.clients import JoinedClient


class UserReports:
    """Counts the connections of each user, as a use of it; anonymous clients are no users."""

    def __init__(self, occupancy: LocalOccupancy) -> None:
        self._occupancy = occupancy

    def client_connected(self, client: JoinedClient, *, resumed: bool) -> None:
        """A client has joined a namespace, or resumed its connection there."""
        if not client.principal.anonymous:
            self._occupancy.enter(user_subject(*client.principal.user), resumed=resumed)

    def client_disconnected(self, client: JoinedClient, reason: DisconnectReason) -> None:
        """A client has left a namespace, or has lost its connection; it may resume it."""
        if not client.principal.anonymous:
            self._occupancy.leave(user_subject(*client.principal.user))


class ConnectionReports:
    """Queues `connection.opened` and `connection.closed` for the hooks."""

    def __init__(self, events: HookEvents) -> None:
        self._events = events

    def client_connected(self, client: JoinedClient, *, resumed: bool) -> None:
        """A client has joined a namespace, or resumed its connection there."""
        fields = {**_fields(client), "resumed": resumed}
        self._events.append(HookType.CONNECTION_OPENED, fields)

    def client_disconnected(self, client: JoinedClient, reason: DisconnectReason) -> None:
        """A client has left a namespace, or has lost its connection; it may resume it."""
        fields = {**_fields(client), "reason": reason.code}
        self._events.append(HookType.CONNECTION_CLOSED, fields)


def _fields(client: JoinedClient) -> dict[str, object]:
    return {
        "org": client.principal.org,
        "user_id": client.principal.user_id,
        "connection_id": client.connection_id,
        "namespace": client.namespace,
    }
