"""What a connection takes along that is had back on another node than it was cut off on."""

from dataclasses import dataclass, field

from server.core.log.entries import Position


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """Who wants which connection back, and the last event that they saw."""

    namespace: str
    # Whoever has it has the connection: not for logs.
    pid: str = field(repr=False)
    org: str
    user_id: str
    offset: str | None

    @property
    def owner(self) -> tuple[str, str]:
        """Whose it has to be."""
        return self.org, self.user_id


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """One topic: how far the client has come there, and what it is to be told besides."""

    topic: str
    position: Position
    interval_ms: int
    needs_snapshot: bool
    # What it was told last of the feed; None where it is to be told that anew.
    stale: bool | None


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """A connection, whose it is, and where it stands in all that it listens to."""

    connection_id: str
    org: str
    user_id: str
    topics: tuple[SubscriptionState, ...]
