"""Has connections back that were cut off on another node, and gives up those that are there."""

from client_sdk.contract import ConnectAuth
from server.access import Principal
from server.core.handovers import Luggage, Reclaim
from server.core.tickets import Ticket, Tickets
from server.ports import Handover, Link
from server.services import Moving
from server.sockets.floor import Floor


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

    async def bring(self, link: Link, principal: Principal, auth: ConnectAuth) -> bool:
        """Have a connection's ticket here that another node has, which has it no more."""
        assert auth.pid is not None
        reclaim = Reclaim(self._namespace, auth.pid, *principal.user, auth.offset)
        luggage = await self._handover.fetch(reclaim)
        if luggage is None:
            return False
        is_here = False
        try:
            if (luggage.org, luggage.user_id) == principal.user:
                is_here = await self._moving.take_in(principal, link, luggage, auth.offset)
        finally:
            # Its client may have gone meanwhile.
            if not is_here:
                self._handover.forget(reclaim)
        if is_here:
            now = self._floor.clock.monotonic()
            self._tickets.adopt(auth.pid, luggage.connection_id, principal.user, now)
        return is_here

    def give(self, reclaim: Reclaim) -> Luggage | None:
        """What another node asks for, if it is to be had back."""
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

    def _pack(self, ticket: Ticket, reclaim: Reclaim) -> Luggage | None:
        self._tickets.forget(ticket.connection_id)
        standings = self._moving.pack(ticket.connection_id, reclaim.offset)
        if standings is None:
            return None
        return Luggage(ticket.connection_id, *reclaim.owner, standings)
