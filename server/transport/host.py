"""The port between a connection and the engine that holds it."""

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from server.core.disconnects import DisconnectReason
from server.core.recovery.offsets import Offsets
from server.core.wire.packets import Packet, RawPacket
from server.ports import Clock
from server.transport.config import TransportConfig
from server.transport.fair_queue import FairQueue
from server.transport.refusals import RefusalLog

ConnectionT = TypeVar("ConnectionT", contravariant=True)


class Watched(Protocol):
    """What has deadlines: a connection, or the probe of an upgrade."""

    def __hash__(self) -> int: ...

    def check(self, now: float) -> None:
        """Do what is due, and watch again if there is a next deadline."""


class ConnectionHost(Protocol[ConnectionT]):
    """The engine as its connections see it.

    It must call `check` of a watched object once its time has come, and keep one deadline for
    each: a later `watch` replaces the earlier one. Otherwise silent clients are never closed.
    Example: `host.watch(self, now + 20)` asks for a check in 20 seconds.
    """

    @property
    def config(self) -> TransportConfig:
        """The limits and timing of connections."""

    @property
    def clock(self) -> Clock:
        """The time."""

    @property
    def offsets(self) -> Offsets:
        """The offsets of this node's writes."""

    @property
    def refusals(self) -> RefusalLog:
        """The log of refusals."""

    @property
    def fair_queue(self) -> FairQueue:
        """The turns that connections take when they want more than their budget of time."""

    def watch(self, watched: Watched, when: float) -> None:
        """Call `check` at this time."""

    def release_soon(self, connection: ConnectionT) -> None:
        """Call `release` at the end of this turn of the loop."""

    def unwatch(self, watched: Watched) -> None:
        """Forget the deadline; a no-op if there is none."""

    def admit_event(self, connection: ConnectionT, packet: RawPacket) -> bool:
        """Whether an event may be queued; refuses it by itself if not."""

    def on_packet(self, connection: ConnectionT, packet: Packet) -> Awaitable[None]:
        """Handle a well-formed packet."""

    def on_namespace_closed(
        self, connection: ConnectionT, namespace: str, reason: DisconnectReason
    ) -> None:
        """Clean up one namespace of a connection that stays open."""

    def on_closed(self, connection: ConnectionT, reason: DisconnectReason) -> None:
        """Clean up a closed connection with all its namespaces."""
