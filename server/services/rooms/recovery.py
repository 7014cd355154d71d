"""Parks, resumes, exports and imports the rooms of connections."""

from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

from server.access import Principal
from server.core.errors import FloorcastError
from server.core.recovery.connection_state import ConnectionState, SubscriptionState
from server.core.recovery.tickets import Owner
from server.delivery import ExportedSubscription, Hub
from server.services.node_subscriptions import release_each
from server.services.recovery import ResumingClient, parse_pushes
from server.services.rooms.rooms import Rooms

MayStay = Callable[[Principal, str], Coroutine[Any, Any, bool]]


class RoomRecovery:
    """Implements `RecoverableState` for a namespace of the application."""

    def __init__(self, rooms: Rooms, hub: Hub, may_stay: MayStay) -> None:
        self._rooms = rooms
        self._hub = hub
        self._may_stay = may_stay
        # Channels of exported connections that may have no subscribers any more.
        self._idle_channels: list[str] = []

    def park(self, connection_id: str) -> None:
        self._hub.park(connection_id)

    async def is_allowed(self, connection_id: str, principal: Principal) -> bool:
        for room in self._rooms.rooms_of(connection_id):
            if not await self._may_stay(principal, room):
                return False
        return True

    def resume(self, connection_id: str, client: ResumingClient, first_frames: bytes) -> bool:
        return self._hub.resume(connection_id, client.link, client.offset, first_frames)

    async def remove(self, connection_id: str, *, lost: bool) -> None:
        await self._rooms.remove_connection(connection_id)

    def last_offset(self, connection_id: str) -> str:
        return self._hub.last_offset(connection_id)

    def export_parked(
        self, connection_id: str, owner: Owner, offset: str | None
    ) -> ConnectionState | None:
        exported = self._hub.export(connection_id, offset)
        rooms = {
            self._rooms.channel_name(owner[0], room): room
            for room in self._rooms.rooms_of(connection_id)
        }
        self._idle_channels += self._rooms.export_connection(connection_id)
        if exported is None:
            return None
        return ConnectionState(
            connection_id,
            *owner,
            tuple(
                SubscriptionState(
                    rooms[each.channel],
                    each.position,
                    each.interval_ms,
                    each.needs_snapshot,
                    each.stale,
                )
                for each in exported.subscriptions
            ),
            pushes=tuple(push.decode() for push in exported.pushes),
        )

    async def import_parked(self, client: ResumingClient, state: ConnectionState) -> bool:
        pushes = parse_pushes(self._rooms.namespace, state)
        if pushes is None:
            return False
        opened: list[str] = []
        try:
            with ExitStack() as holds:
                subscriptions = []
                for each in state.topics:
                    name = self._rooms.channel_name(state.org, each.topic)
                    opened.append(name)
                    await self._rooms.open(name, each.position)
                    holds.enter_context(self._rooms.hold(name))
                    subscriptions.append(ExportedSubscription(name, each.position, 0, False, False))
                # No await from here on: broadcasts published later follow the missed ones.
                return self._restore(client, state, subscriptions, pushes)
        except FloorcastError:
            # The broker is down, or another node sent an invalid name.
            return False
        finally:
            await release_each(opened, self._rooms.release)

    async def release_idle(self) -> None:
        idle, self._idle_channels = self._idle_channels, []
        await release_each(idle, self._rooms.release)

    def _restore(
        self,
        client: ResumingClient,
        state: ConnectionState,
        subscriptions: list[ExportedSubscription],
        pushes: list[bytes],
    ) -> bool:
        # The id may be forged: never replace an existing connection.
        if state.connection_id in self._rooms or not self._hub.restore(
            state.connection_id, client.link, client.offset, subscriptions, pushes
        ):
            return False
        rooms = dict.fromkeys(each.topic for each in state.topics)
        self._rooms.add_parked(state.connection_id, state.org, rooms)
        return True
