"""The state of a parked connection, as one node hands it over to another."""

from dataclasses import dataclass, field

from server.core.log.entries import Position


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """A client's request to resume a connection, with the last offset it saw."""

    namespace: str
    # Who knows the pid can take the connection: not for logs.
    pid: str = field(repr=False)
    org: str
    user_id: str
    offset: str | None

    @property
    def owner(self) -> tuple[str, str]:
        """The org and user that the connection must belong to."""
        return self.org, self.user_id


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """How far the client has come in one topic, and what else it must be sent there."""

    topic: str
    position: Position
    interval_ms: int
    needs_snapshot: bool
    # The feed status that the client was last sent; None if it must be sent it again.
    stale: bool | None


@dataclass(frozen=True, slots=True)
class MembershipState:
    """How far the client has come in one session: its messages, and its session events."""

    session_id: str
    position: Position
    revision: int


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """A connection, its owner, and its state in all its topics and sessions."""

    connection_id: str
    org: str
    user_id: str
    topics: tuple[SubscriptionState, ...] = ()
    sessions: tuple[MembershipState, ...] = ()
    # The session in its CONNECT.
    initial_session: str | None = None
    # The pushes that the client missed, each an event without its closing bracket. Not for logs.
    pushes: tuple[str, ...] = field(default=(), repr=False)
