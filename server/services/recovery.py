"""Connection state recovery: parks, resumes, exports and imports the connections of this node."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import orjson

from server.access import Principal
from server.core.disconnects import DisconnectReason
from server.core.recovery.connection_state import ConnectionState, ResumeRequest
from server.core.recovery.tickets import Owner, ResumeTicket, ResumeTickets, node_of
from server.core.wire.packets import event_head
from server.ports import Clock, Handover, Link
from server.tasks import TaskOwner

_MAX_FETCHES = 10_000
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ResumingClient:
    """A client that asks to resume a connection."""

    principal: Principal
    link: Link
    # Who knows the pid can take the connection: not for logs.
    pid: str = field(repr=False)
    # The last offset that it saw.
    offset: str | None
    # The session in its CONNECT.
    session_id: str | None = None


class RecoverableState(Protocol):
    """What one namespace keeps of its connections.

    An implementation must keep a parked connection complete: a client that resumes it learns that
    it missed nothing. For example, if one of its topics has lost messages, `resume` returns False.
    """

    def park(self, connection_id: str) -> None:
        """Keep the state of a disconnected connection until it resumes or is removed."""

    async def is_allowed(self, connection_id: str, principal: Principal) -> bool:
        """Whether the application's rule allows all that a parked connection has."""

    def resume(self, connection_id: str, client: ResumingClient, first_frames: bytes) -> bool:
        """Send a client `first_frames`, then what it missed on its parked connection.

        Returns False, and sends nothing, if the client may not resume it or missed events are lost.
        """

    async def remove(self, connection_id: str, *, lost: bool) -> None:
        """Remove all state of a connection; `lost` if its client may come back."""

    def last_offset(self, connection_id: str) -> str:
        """The offset of the last write to a parked connection."""

    def export_parked(
        self, connection_id: str, owner: Owner, offset: str | None
    ) -> ConnectionState | None:
        """Remove a parked connection; returns its state, None if `offset` is unknown."""

    async def import_parked(self, client: ResumingClient, state: ConnectionState) -> bool:
        """Park a connection of another node here; `resume` authorizes the client later.

        Returns False, and keeps nothing, if the state is invalid, if missed events are lost, or if
        the broker is down.
        """

    async def release_idle(self) -> None:
        """Stop receiving channels that have no subscribers since an export."""


@dataclass(frozen=True, slots=True)
class _Namespace:
    tickets: ResumeTickets
    state: RecoverableState


class Recovery:
    """The resume tickets of all namespaces of one node, and the state behind them."""

    def __init__(
        self,
        handover: Handover,
        clock: Clock,
        tasks: TaskOwner,
        abort_half_open: Callable[[str], None],
    ) -> None:
        self._handover = handover
        self._tasks = tasks
        self._clock = clock
        # Aborts a connection whose client is back before the server noticed the loss.
        self._abort_half_open = abort_half_open
        self._namespaces: dict[str, _Namespace] = {}
        # Connections in transfer to this node, by pid and owner.
        self._fetches: dict[tuple[str, Owner], asyncio.Task[bool]] = {}

    def add_namespace(self, name: str, tickets: ResumeTickets, state: RecoverableState) -> None:
        """Recover the connections of this namespace."""
        self._namespaces[name] = _Namespace(tickets, state)

    async def start(self) -> None:
        """Answer the requests of other nodes."""
        await self._handover.start(self.export)

    async def stop(self) -> None:
        """Wait for transfers to this node, then save the parked connections for other nodes."""
        if self._fetches:
            _, late = await asyncio.wait(self._fetches.values(), timeout=_STOP_SECONDS)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late)
        await self._handover.stop(self.export_all)

    async def sweep(self) -> None:
        """Remove parked connections whose resume window has ended."""
        for name, namespace in self._namespaces.items():
            for connection_id in namespace.tickets.expired(self._clock.monotonic()):
                await self._evict(name, connection_id)
            await namespace.state.release_idle()

    def parked_counts(self) -> dict[str, int]:
        """How many connections of each namespace are parked."""
        return {name: each.tickets.parked_count for name, each in self._namespaces.items()}

    # --- connections of this node

    def is_offered(self, namespace: str, principal: Principal) -> bool:
        """Whether a client of this namespace can resume its connection later."""
        return self._namespaces[namespace].tickets.window_seconds > 0 and not principal.anonymous

    def issue(self, namespace: str, connection_id: str, owner: Owner, offset: str | None) -> str:
        """Issue the ticket of a new connection, whose client still repeats `offset`."""
        return self._namespaces[namespace].tickets.issue(connection_id, owner, offset)

    def pid_of(self, namespace: str, connection_id: str) -> str | None:
        """The private id of a connection, None if it cannot be resumed."""
        ticket = self._namespaces[namespace].tickets.of_connection(connection_id)
        return None if ticket is None else ticket.pid

    async def park(self, namespace: str, connection_id: str, reason: DisconnectReason) -> None:
        """Park a lost connection; removes it if it is not resumable. May evict the oldest one."""
        tickets, state = self._tickets_and_state(namespace)
        if reason.resumable and tickets.park(connection_id, self._clock.monotonic()):
            state.park(connection_id)
            await self._evict_surplus(namespace)
        else:
            await self.remove(namespace, connection_id, lost=reason.reconnect)

    async def remove(self, namespace: str, connection_id: str, *, lost: bool) -> None:
        """Remove a connection, so that it cannot be resumed."""
        tickets, state = self._tickets_and_state(namespace)
        ticket = tickets.remove(connection_id)
        if ticket is not None:
            self._handover.forget(ResumeRequest(namespace, ticket.pid, *ticket.owner, None))
        await state.remove(connection_id, lost=lost)

    def find(self, namespace: str, client: ResumingClient) -> str | None:
        """The id of the parked connection that a client may resume; aborts it if half open."""
        ticket = self._find_ticket(namespace, client)
        return None if ticket is None or not self._is_parked(ticket) else ticket.connection_id

    async def authorize(self, namespace: str, client: ResumingClient) -> None:
        """Remove the parked connection of a client if the application's rule forbids it."""
        connection_id = self.find(namespace, client)
        if connection_id is None:
            return
        state = self._namespaces[namespace].state
        if not await state.is_allowed(connection_id, client.principal):
            await self._evict(namespace, connection_id)

    async def resume(
        self, namespace: str, connection_id: str, client: ResumingClient, first_frames: bytes
    ) -> bool:
        """Resume a connection that `find` returned: send `first_frames`, then what it missed.

        Returns False, and removes the connection, if it cannot be resumed.
        """
        tickets, state = self._tickets_and_state(namespace)
        ticket = tickets.of_connection(connection_id)
        assert ticket is not None
        resumed = False
        try:
            seen = replace(client, offset=ticket.seen_offset(client.offset))
            resumed = state.resume(connection_id, seen, first_frames)
        finally:
            if not resumed:
                await self._evict(namespace, connection_id)
        if resumed:
            tickets.resume(connection_id)
        return resumed

    # --- connections of other nodes

    async def fetch(self, namespace: str, client: ResumingClient) -> bool:
        """Take over a parked connection's resume ticket from the node that holds it.

        Returns False if it is here, if no node has it, or if too many transfers are running. May
        evict the oldest connection parked here.
        """
        if self._find_ticket(namespace, client) is not None or not node_of(client.pid):
            return False
        request = ResumeRequest(namespace, client.pid, *client.principal.user, client.offset)
        key = request.pid, request.owner
        fetch = self._fetches.get(key)
        if fetch is None:
            if len(self._fetches) >= _MAX_FETCHES:
                return False
            # A task of its own: the other node has already dropped the connection, so the transfer
            # must finish even if this client disconnects; its next attempt finds the result.
            fetch = self._tasks.start(self._import(request, client), "floorcast-recovery")
            self._fetches[key] = fetch
            fetch.add_done_callback(lambda _: self._fetches.pop(key))
        fetched = await asyncio.shield(fetch)
        await self._evict_surplus(namespace)
        return fetched

    def export(self, request: ResumeRequest) -> ConnectionState | asyncio.Task[bool] | None:
        """Export a connection to the node that requests it; aborts it here if half open.

        Returns None if it cannot be resumed, and the running task if it is in transfer to this
        node itself.
        """
        fetch = self._fetches.get((request.pid, request.owner))
        if fetch is not None:
            return fetch
        namespace = self._namespaces.get(request.namespace)
        ticket = None if namespace is None else namespace.tickets.find(request.pid, request.owner)
        if ticket is None:
            return None
        self._abort_half_open(ticket.connection_id)
        return self._export(ticket, request) if self._is_parked(ticket) else None

    def export_all(self) -> list[tuple[ResumeRequest, ConnectionState]]:
        """Export all parked connections, each at its last written offset."""
        exported = []
        for name, namespace in self._namespaces.items():
            for ticket in namespace.tickets.parked():
                offset = namespace.state.last_offset(ticket.connection_id)
                request = ResumeRequest(name, ticket.pid, *ticket.owner, offset)
                state = self._export(ticket, request)
                if state is not None:
                    exported.append((request, state))
        return exported

    # --- internal

    def _tickets_and_state(self, namespace: str) -> tuple[ResumeTickets, RecoverableState]:
        found = self._namespaces[namespace]
        return found.tickets, found.state

    def _find_ticket(self, namespace: str, client: ResumingClient) -> ResumeTicket | None:
        ticket = self._namespaces[namespace].tickets.find(client.pid, client.principal.user)
        if ticket is not None:
            self._abort_half_open(ticket.connection_id)
        return ticket

    def _is_parked(self, ticket: ResumeTicket) -> bool:
        return ticket.expires_at is not None and ticket.expires_at > self._clock.monotonic()

    async def _evict(self, namespace: str, connection_id: str) -> None:
        await self.remove(namespace, connection_id, lost=True)

    async def _evict_surplus(self, namespace: str) -> None:
        for evicted in self._namespaces[namespace].tickets.pop_evicted():
            await self._evict(namespace, evicted)

    def _export(self, ticket: ResumeTicket, request: ResumeRequest) -> ConnectionState | None:
        tickets, state = self._tickets_and_state(request.namespace)
        tickets.remove(ticket.connection_id)
        offset = ticket.seen_offset(request.offset)
        return state.export_parked(ticket.connection_id, request.owner, offset)

    async def _import(self, request: ResumeRequest, client: ResumingClient) -> bool:
        exported = await self._handover.fetch(request)
        if exported is None:
            return False
        tickets, state = self._tickets_and_state(request.namespace)
        imported = False
        try:
            if (exported.org, exported.user_id) == request.owner:
                imported = await state.import_parked(client, exported)
        finally:
            # The import may have failed, or may have been cancelled.
            if not imported:
                self._handover.forget(request)
        if imported:
            now = self._clock.monotonic()
            tickets.adopt(request.pid, exported.connection_id, request.owner, now)
        return imported


def parse_pushes(namespace: str, state: ConnectionState) -> list[bytes] | None:
    """The pushes of a connection of another node, each an event without its closing bracket.

    Returns None if one is invalid.
    """
    pushes = []
    for push in state.pushes:
        try:
            event, body = orjson.loads(push.removeprefix(f"42{namespace},") + "]")
        except ValueError:
            return None
        if not isinstance(event, str) or not isinstance(body, dict):
            return None
        pushes.append(event_head(namespace, event, orjson.dumps(body)))
    return pushes
