"""Resume tickets: who may resume a disconnected connection, with which pid, and until when."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass

# The org and the user.
Owner = tuple[str, str]


@dataclass(slots=True, eq=False)
class ResumeTicket:
    """The right of one owner to resume one connection."""

    pid: str
    connection_id: str
    owner: Owner
    # Until when the connection can be resumed; None while it is connected.
    expires_at: float | None = None
    # The offset that the client connected with, from an earlier connection.
    previous_offset: str | None = None

    def seen_offset(self, offset: str | None) -> str | None:
        """The offset that the client saw on this connection; None if it saw none.

        A client repeats the offset of an earlier connection until it receives a newer one.
        """
        return None if offset == self.previous_offset else offset


def node_of(pid: str) -> str:
    """The node that issued a pid; empty if the pid names none."""
    return pid.rpartition(".")[0]


class ResumeTickets:
    """The tickets of one node.

    Only parked connections count against the bounds; beyond them the oldest are to be evicted:
    take them with `pop_evicted` and `remove` each.
    """

    def __init__(
        self, *, window_seconds: float, max_parked: int, max_parked_per_owner: int, node: str = ""
    ) -> None:
        # With several nodes, a pid names the node that issued it.
        self._prefix = f"{node}." if node else ""
        self._window_seconds = window_seconds
        self._max_parked = max_parked
        self._max_parked_per_owner = max_parked_per_owner
        self._by_pid: dict[str, ResumeTicket] = {}
        self._by_connection: dict[str, ResumeTicket] = {}
        # In order of expiry, because the window is the same for all.
        self._parked: OrderedDict[str, ResumeTicket] = OrderedDict()
        self._parked_by_owner: dict[Owner, dict[str, None]] = {}
        self._evicted: list[str] = []

    @property
    def window_seconds(self) -> float:
        """For how long a connection can be resumed; 0 disables recovery."""
        return self._window_seconds

    @property
    def parked_count(self) -> int:
        """The number of disconnected connections that can be resumed."""
        return len(self._parked)

    def __len__(self) -> int:
        return len(self._by_connection)

    def issue(self, connection_id: str, owner: Owner, previous_offset: str | None = None) -> str:
        """Issue a ticket for a new connection; returns its pid, a secret of the client."""
        pid = self._prefix + secrets.token_urlsafe(15)
        self._add(ResumeTicket(pid, connection_id, owner, previous_offset=previous_offset))
        return pid

    def adopt(self, pid: str, connection_id: str, owner: Owner, now: float) -> None:
        """Add the ticket of a connection that was parked on another node, and park it here."""
        ticket = ResumeTicket(pid, connection_id, owner)
        self._add(ticket)
        self.park(connection_id, now)

    def find(self, pid: str, owner: Owner) -> ResumeTicket | None:
        """The owner's ticket with this pid; None if there is none, or it has another owner."""
        ticket = self._by_pid.get(pid)
        return ticket if ticket is not None and ticket.owner == owner else None

    def of_connection(self, connection_id: str) -> ResumeTicket | None:
        """The ticket of one connection; None if it has none."""
        return self._by_connection.get(connection_id)

    def park(self, connection_id: str, now: float) -> bool:
        """Start the resume window of a lost connection; False if it has no ticket."""
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
        """Return, once, the connections to evict because too many are parked."""
        evicted, self._evicted = self._evicted, []
        # One may have been resumed since.
        return [each for each in evicted if each in self._parked]

    def resume(self, connection_id: str) -> None:
        """End the resume window: the client is connected again. The ticket must exist."""
        ticket = self._by_connection[connection_id]
        ticket.expires_at = None
        self._unpark(ticket)

    def remove(self, connection_id: str) -> ResumeTicket | None:
        """Remove and return a connection's ticket; None if it has none."""
        ticket = self._by_connection.pop(connection_id, None)
        if ticket is not None:
            del self._by_pid[ticket.pid]
            if ticket.expires_at is not None:
                self._unpark(ticket)
        return ticket

    def expired(self, now: float) -> list[str]:
        """The parked connections whose window is over; they stay until removed."""
        expired = []
        for connection_id, ticket in self._parked.items():
            assert ticket.expires_at is not None
            if ticket.expires_at > now:
                break
            expired.append(connection_id)
        return expired

    def parked(self) -> tuple[ResumeTicket, ...]:
        """The tickets of all parked connections."""
        return tuple(self._parked.values())

    def parked_of(self, owner: Owner) -> tuple[str, ...]:
        """The parked connections of one owner."""
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
