"""Fetches parked connections from other nodes, and exports this node's to them."""

import asyncio

from client_sdk.contract import ConnectAuth
from server.access import Principal
from server.core.recovery.connection_state import ConnectionState, ResumeRequest
from server.core.recovery.tickets import Owner, ResumeTicket, ResumeTickets, node_of
from server.ports import Handover, Link
from server.services import StateTransfer
from server.sockets.context import NamespaceContext

_MAX_FETCHES = 10_000
_STOP_SECONDS = 2.0


class RemoteRecovery:
    """Recovery of one namespace's connections across nodes."""

    def __init__(
        self,
        namespace: str,
        context: NamespaceContext,
        tickets: ResumeTickets,
        transfer: StateTransfer,
        handover: Handover,
    ) -> None:
        self._namespace = namespace
        self._context = context
        self._tickets = tickets
        self._transfer = transfer
        self._handover = handover
        # Connections in transfer to this node, by pid and owner.
        self._fetches: dict[tuple[str, Owner], asyncio.Task[bool]] = {}

    async def stop(self) -> None:
        """Wait for transfers to this node, then cancel them; call `fetch` no more after this."""
        if self._fetches:
            _, late = await asyncio.wait(self._fetches.values(), timeout=_STOP_SECONDS)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late)

    async def fetch(self, link: Link, principal: Principal, auth: ConnectAuth) -> bool:
        """Take over a parked connection's resume ticket from the node that holds it.

        Returns False if no node has it or if too many transfers are running.
        """
        assert auth.pid is not None
        if not node_of(auth.pid):
            return False
        request = ResumeRequest(self._namespace, auth.pid, *principal.user, auth.offset)
        key = request.pid, request.owner
        fetch = self._fetches.get(key)
        if fetch is None:
            if len(self._fetches) >= _MAX_FETCHES:
                return False
            # A task of its own: the other node has already dropped the connection, so the transfer
            # must finish even if this client disconnects; its next attempt finds the result.
            transfer = self._fetch(link, principal, request)
            fetch = asyncio.create_task(transfer, name="floorcast-recovery")
            self._fetches[key] = fetch
            fetch.add_done_callback(lambda _: self._fetches.pop(key))
        return await asyncio.shield(fetch)

    def export(self, request: ResumeRequest) -> ConnectionState | asyncio.Task[bool] | None:
        """Export a connection to the node that requests it; aborts it here if half open.

        Returns None if it cannot be resumed, and the running task if it is in transfer to this
        node itself.
        """
        fetch = self._fetches.get((request.pid, request.owner))
        if fetch is not None:
            return fetch
        ticket = self._tickets.find(request.pid, request.owner)
        if request.namespace != self._namespace or ticket is None:
            return None
        self._context.abort_half_open(ticket.connection_id)
        if ticket.expires_at is None or ticket.expires_at <= self._context.clock.monotonic():
            return None
        return self._export(ticket, request)

    def export_all(self) -> list[tuple[ResumeRequest, ConnectionState]]:
        """Export all parked connections, each at its last written offset."""
        exported = []
        for ticket in self._tickets.parked():
            org, user_id = ticket.owner
            offset = self._transfer.last_offset(ticket.connection_id)
            request = ResumeRequest(self._namespace, ticket.pid, org, user_id, offset)
            state = self._export(ticket, request)
            if state is not None:
                exported.append((request, state))
        return exported

    def forget(self, ticket: ResumeTicket) -> None:
        """Tell the handover that this node no longer has the ticket."""
        self._handover.forget(ResumeRequest(self._namespace, ticket.pid, *ticket.owner, None))

    async def release_idle(self) -> None:
        """Stop receiving topics that have no subscribers since an export; awaits the broker."""
        await self._transfer.release_idle()

    async def _fetch(self, link: Link, principal: Principal, request: ResumeRequest) -> bool:
        state = await self._handover.fetch(request)
        if state is None:
            return False
        imported = False
        try:
            if (state.org, state.user_id) == principal.user:
                imported = await self._transfer.import_state(principal, link, state, request.offset)
        finally:
            # The import may have failed, or may have been cancelled.
            if not imported:
                self._handover.forget(request)
        if imported:
            now = self._context.clock.monotonic()
            self._tickets.adopt(request.pid, state.connection_id, principal.user, now)
        return imported

    def _export(self, ticket: ResumeTicket, request: ResumeRequest) -> ConnectionState | None:
        self._tickets.remove(ticket.connection_id)
        subscriptions = self._transfer.export_state(
            ticket.connection_id, ticket.seen_offset(request.offset)
        )
        if subscriptions is None:
            return None
        return ConnectionState(ticket.connection_id, *request.owner, subscriptions)
