"""Has connections back that were cut off on another node, and gives up those that are there."""

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
    """The tickets of one namespace, as far as they concern other nodes."""

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
        # By secret and owner: those who are on their way from another node to this one.
        self._fetches: dict[tuple[str, Owner], asyncio.Task[bool]] = {}

    async def stop(self) -> None:
        """Nobody is on the way to this node any more; nobody may be brought after this."""
        if self._fetches:
            _, late = await asyncio.wait(self._fetches.values(), timeout=_STOP_SECONDS)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late)

    async def fetch(self, link: Link, principal: Principal, auth: ConnectAuth) -> bool:
        """Have a connection's ticket here that another node has, which has it no more."""
        assert auth.pid is not None
        if not node_of(auth.pid):
            return False
        reclaim = ResumeRequest(self._namespace, auth.pid, *principal.user, auth.offset)
        key = reclaim.pid, reclaim.owner
        coming = self._fetches.get(key)
        if coming is None:
            if len(self._fetches) >= _MAX_FETCHES:
                return False
            # It has left the other node, and comes here also for who is cut off once more
            # meanwhile: whoever brings it to an end, its client will ask again.
            bringing = self._fetch(link, principal, reclaim)
            coming = asyncio.create_task(bringing, name="floorcast-crossing")
            self._fetches[key] = coming
            coming.add_done_callback(lambda _: self._fetches.pop(key))
        return await asyncio.shield(coming)

    def export(self, request: ResumeRequest) -> ConnectionState | asyncio.Task[bool] | None:
        """What another node asks for, if it is to be had back."""
        coming = self._fetches.get((request.pid, request.owner))
        if coming is not None:
            return coming
        ticket = self._tickets.find(request.pid, request.owner)
        if request.namespace != self._namespace or ticket is None:
            return None
        self._context.abort_half_open(ticket.connection_id)
        if ticket.expires_at is None or ticket.expires_at <= self._context.clock.monotonic():
            return None
        return self._export(ticket, request)

    def export_all(self) -> list[tuple[ResumeRequest, ConnectionState]]:
        """All who are cut off here, each for a client that has seen all that was written to it."""
        left = []
        for ticket in self._tickets.parked():
            org, user_id = ticket.owner
            offset = self._transfer.last_offset(ticket.connection_id)
            reclaim = ResumeRequest(self._namespace, ticket.pid, org, user_id, offset)
            luggage = self._export(ticket, reclaim)
            if luggage is not None:
                left.append((reclaim, luggage))
        return left

    def forget(self, ticket: ResumeTicket) -> None:
        """Nobody is to look for it here any more."""
        self._handover.forget(ResumeRequest(self._namespace, ticket.pid, *ticket.owner, None))

    async def release_idle(self) -> None:
        """What follows on giving up connections, and may have to wait for the broker."""
        await self._transfer.release_idle()

    async def _fetch(self, link: Link, principal: Principal, request: ResumeRequest) -> bool:
        luggage = await self._handover.fetch(request)
        if luggage is None:
            return False
        is_here = False
        try:
            if (luggage.org, luggage.user_id) == principal.user:
                is_here = await self._transfer.import_state(
                    principal, link, luggage, request.offset
                )
        finally:
            # It may have come to nothing on the way.
            if not is_here:
                self._handover.forget(request)
        if is_here:
            now = self._context.clock.monotonic()
            self._tickets.adopt(request.pid, luggage.connection_id, principal.user, now)
        return is_here

    def _export(self, ticket: ResumeTicket, request: ResumeRequest) -> ConnectionState | None:
        self._tickets.remove(ticket.connection_id)
        standings = self._transfer.export_state(
            ticket.connection_id, ticket.seen_offset(request.offset)
        )
        if standings is None:
            return None
        return ConnectionState(ticket.connection_id, *request.owner, standings)
