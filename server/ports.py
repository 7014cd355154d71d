"""The seams of the house: what the product asks of the parts that do I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from server.core.errors import FloorcastError


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and deadlines."""

    def time(self) -> float:
        """Seconds since 1970 UTC, for what clients and tokens see."""


class Link(Protocol):
    """The way to one client, whatever transport carries it."""

    @property
    def buffered_bytes(self) -> int:
        """What was written and has not left this process yet."""

    @property
    def deflates(self) -> bool:
        """Whether frames may be compressed for this client."""

    def write(self, frames: bytes) -> None:
        """Send one or more complete, unmasked WebSocket text frames."""

    def abort(self, reason: str) -> None:
        """End the connection now, without waiting for the client."""

    def end(self, error: FloorcastError, *, reconnect: bool, namespace: str | None = None) -> None:
        """Say goodbye and why, and whether to come back; then end, or end one namespace."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a topic's history; a new epoch says that history was lost."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted message: where it stands, when it came, and its data as JSON bytes."""

    channel: str
    position: Position
    ts_ms: int
    data: bytes


class Broker(Protocol):
    """Gives positions, keeps what was published, and tells the nodes."""

    async def start(self, deliver: Callable[[Entry], None]) -> None:
        """Begin; `deliver` hears every entry of the watched channels, in order."""

    async def stop(self) -> None:
        """Give everything back; nothing is delivered afterwards."""

    async def publish(self, channel: str, data: bytes, ts_ms: int) -> Position:
        """Accept one message; when this returns it has its place for good."""

    async def head(self, channel: str) -> Position:
        """The position of the newest entry; seq 0 where there is none yet."""

    async def latest(self, channel: str) -> Entry | None:
        """The newest entry, for a snapshot."""

    async def watch(self, channel: str) -> None:
        """This node has subscribers of the channel."""

    async def unwatch(self, channel: str) -> None:
        """The last subscriber of this node has gone."""


class Publishing(Protocol):
    """What a feed may do: put updates into the market."""

    async def publish(self, topic: str, data: Mapping[str, object]) -> Position:
        """Validate, stamp and publish one update of a public topic."""


class Feed(Protocol):
    """A source of market data that runs until it is cancelled."""

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled."""
