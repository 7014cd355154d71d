"""Who may have a connection back that was cut off: each has a secret, and so much time."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass

# The org and the user.
Owner = tuple[str, str]


@dataclass(slots=True, eq=False)
class ResumeTicket:
    """What one connection of one owner can be had back with."""

    pid: str
    connection_id: str
    owner: Owner
    # Until when it can be had back; None while it is not cut off.
    expires_at: float | None = None
    # The offset that its client came with, which is of an earlier connection.
    previous_offset: str | None = None

    def seen_offset(self, offset: str | None) -> str | None:
        """What its client has seen of this connection, by the offset that it says; None, nothing.

        A client says an earlier one until something newer has come.
        """
        return None if offset == self.previous_offset else offset


def node_of(pid: str) -> str:
    """The node that gave out a secret; nothing where it does not say."""
    return pid.rpartition(".")[0]


class ResumeTickets:
    """Every ticket of a node. Only those who are cut off count; the oldest make room."""

    def __init__(
        self, *, window_seconds: float, max_parked: int, max_parked_per_owner: int, node: str = ""
    ) -> None:
        # Where there are other nodes, its secrets say who gave them out.
        self._prefix = f"{node}." if node else ""
        self._window_seconds = window_seconds
        self._max_parked = max_parked
        self._max_parked_per_owner = max_parked_per_owner
        self._by_pid: dict[str, ResumeTicket] = {}
        self._by_connection: dict[str, ResumeTicket] = {}
        # In the order of their ends, for the time is the same for all.
        self._parked: OrderedDict[str, ResumeTicket] = OrderedDict()
        self._parked_by_owner: dict[Owner, dict[str, None]] = {}
        self._evicted: list[str] = []

    @property
    def window_seconds(self) -> float:
        """For how long a connection can be had back; 0 is not at all."""
        return self._window_seconds

    @property
    def parked_count(self) -> int:
        """How many are cut off and may come back."""
        return len(self._parked)

    def __len__(self) -> int:
        return len(self._by_connection)

    def issue(self, connection_id: str, owner: Owner, previous_offset: str | None = None) -> str:
        """A ticket for a connection that has just come; its secret is for its client alone."""
        secret = self._prefix + secrets.token_urlsafe(15)
        self._add(ResumeTicket(secret, connection_id, owner, previous_offset=previous_offset))
        return secret

    def adopt(self, pid: str, connection_id: str, owner: Owner, now: float) -> None:
        """Take over one that was cut off on another node, and may be had back here."""
        ticket = ResumeTicket(pid, connection_id, owner)
        self._add(ticket)
        self.park(connection_id, now)

    def find(self, pid: str, owner: Owner) -> ResumeTicket | None:
        """The ticket with this secret; somebody else's is none."""
        ticket = self._by_pid.get(pid)
        return ticket if ticket is not None and ticket.owner == owner else None

    def of_connection(self, connection_id: str) -> ResumeTicket | None:
        """The ticket of one connection."""
        return self._by_connection.get(connection_id)

    def park(self, connection_id: str, now: float) -> bool:
        """It was cut off; whether it can be had back."""
        ticket = self._by_connection.get(connection_id)
        if ticket is None:
            return False
        ticket.expires_at = now + self._window_seconds
        self._parked[connection_id] = ticket
        mine = self._parked_by_owner.setdefault(ticket.owner, {})
        mine[connection_id] = None
        if len(mine) > self._max_parked_per_owner:
            self._evicted.append(next(iter(mine)))
        elif len(self._parked) > self._max_parked:
            self._evicted.append(next(iter(self._parked)))
        return True

    def pop_evicted(self) -> list[str]:
        """Those who have to make room for others, each once."""
        surplus, self._evicted = self._evicted, []
        return surplus

    def resume(self, connection_id: str) -> None:
        """It is back."""
        ticket = self._by_connection[connection_id]
        ticket.expires_at = None
        self._unpark(ticket)

    def remove(self, connection_id: str) -> ResumeTicket | None:
        """It cannot be had back here any more; what its ticket was, if it had one."""
        ticket = self._by_connection.pop(connection_id, None)
        if ticket is not None:
            del self._by_pid[ticket.pid]
            if ticket.expires_at is not None:
                self._unpark(ticket)
        return ticket

    def expired(self, now: float) -> list[str]:
        """The connections whose time is over."""
        over = []
        for connection_id, ticket in self._parked.items():
            assert ticket.expires_at is not None
            if ticket.expires_at > now:
                break
            over.append(connection_id)
        return over

    def parked(self) -> tuple[ResumeTicket, ...]:
        """Those of all who are cut off."""
        return tuple(self._parked.values())

    def parked_of(self, owner: Owner) -> tuple[str, ...]:
        """Those of one owner that are cut off."""
        return tuple(self._parked_by_owner.get(owner, ()))

    def _add(self, ticket: ResumeTicket) -> None:
        self._by_pid[ticket.pid] = ticket
        self._by_connection[ticket.connection_id] = ticket

    def _unpark(self, ticket: ResumeTicket) -> None:
        del self._parked[ticket.connection_id]
        mine = self._parked_by_owner[ticket.owner]
        del mine[ticket.connection_id]
        if not mine:
            del self._parked_by_owner[ticket.owner]
