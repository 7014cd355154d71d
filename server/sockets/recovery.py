"""Has connections back that were cut off on another node, and gives up those that are there."""

import asyncio

from client_sdk.contract import ConnectAuth
from server.access import Principal
from server.core.recovery.connection_state import Luggage, Reclaim
from server.core.recovery.tickets import Owner, Ticket, Tickets, node_of
from server.ports import Handover, Link
from server.services import Moving
from server.sockets.context import Floor

_MAX_COMING = 10_000
_STOP_SECONDS = 2.0


class Crossing:
    """The tickets of one namespace, as far as they concern other nodes."""

    def __init__(
        self, namespace: str, floor: Floor, tickets: Tickets, moving: Moving, handover: Handover
    ) -> None:
        self._namespace = namespace
        self._floor = floor
        self._tickets = tickets
        self._moving = moving
        self._handover = handover
        # By secret and owner: those who are on their way from another node to this one.
        self._coming: dict[tuple[str, Owner], asyncio.Task[bool]] = {}

    async def stop(self) -> None:
        """Nobody is on the way to this node any more; nobody may be brought after this."""
        if self._coming:
            _, late = await asyncio.wait(self._coming.values(), timeout=_STOP_SECONDS)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late)

    async def bring(self, link: Link, principal: Principal, auth: ConnectAuth) -> bool:
        """Have a connection's ticket here that another node has, which has it no more."""
        assert auth.pid is not None
        if not node_of(auth.pid):
            return False
        reclaim = Reclaim(self._namespace, auth.pid, *principal.user, auth.offset)
        key = reclaim.pid, reclaim.owner
        coming = self._coming.get(key)
        if coming is None:
            if len(self._coming) >= _MAX_COMING:
                return False
            # It has left the other node, and comes here also for who is cut off once more
            # meanwhile: whoever brings it to an end, its client will ask again.
            bringing = self._bring(link, principal, reclaim)
            coming = asyncio.create_task(bringing, name="floorcast-crossing")
            self._coming[key] = coming
            coming.add_done_callback(lambda _: self._coming.pop(key))
        return await asyncio.shield(coming)

    def give(self, reclaim: Reclaim) -> Luggage | asyncio.Task[bool] | None:
        """What another node asks for, if it is to be had back."""
        coming = self._coming.get((reclaim.pid, reclaim.owner))
        if coming is not None:
            return coming
        ticket = self._tickets.find(reclaim.pid, reclaim.owner)
        if reclaim.namespace != self._namespace or ticket is None:
            return None
        self._floor.end_half_open(ticket.connection_id)
        if ticket.until is None or ticket.until <= self._floor.clock.monotonic():
            return None
        return self._pack(ticket, reclaim)

    def give_all(self) -> list[tuple[Reclaim, Luggage]]:
        """All who are cut off here, each for a client that has seen all that was written to it."""
        left = []
        for ticket in self._tickets.parked():
            org, user_id = ticket.owner
            offset = self._moving.last_offset(ticket.connection_id)
            reclaim = Reclaim(self._namespace, ticket.secret, org, user_id, offset)
            luggage = self._pack(ticket, reclaim)
            if luggage is not None:
                left.append((reclaim, luggage))
        return left

    def forget(self, ticket: Ticket) -> None:
        """Nobody is to look for it here any more."""
        self._handover.forget(Reclaim(self._namespace, ticket.secret, *ticket.owner, None))

    async def tidy(self) -> None:
        """What follows on giving up connections, and may have to wait for the broker."""
        await self._moving.tidy()

    async def _bring(self, link: Link, principal: Principal, reclaim: Reclaim) -> bool:
        luggage = await self._handover.fetch(reclaim)
        if luggage is None:
            return False
        is_here = False
        try:
            if (luggage.org, luggage.user_id) == principal.user:
                is_here = await self._moving.take_in(principal, link, luggage, reclaim.offset)
        finally:
            # It may have come to nothing on the way.
            if not is_here:
                self._handover.forget(reclaim)
        if is_here:
            now = self._floor.clock.monotonic()
            self._tickets.adopt(reclaim.pid, luggage.connection_id, principal.user, now)
        return is_here

    def _pack(self, ticket: Ticket, reclaim: Reclaim) -> Luggage | None:
        self._tickets.forget(ticket.connection_id)
        standings = self._moving.pack(ticket.connection_id, ticket.seen(reclaim.offset))
        if standings is None:
            return None
        return Luggage(ticket.connection_id, *reclaim.owner, standings)
