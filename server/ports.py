"""The seams of the house: what the product asks of the parts that do I/O."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from server.core.errors import FloorcastError
from server.core.limits.keys import LimitKey
from server.core.log.entries import Entry, Position, Receipt, Reset
from server.core.log.idempotency import Claim
from server.core.recovery.connection_state import ConnectionState, ResumeRequest
from server.core.sessions.events import SessionEvent
from server.core.sessions.notices import Notice
from server.core.sessions.participants import Participants
from server.core.sessions.records import SessionKey


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and deadlines."""

    def time(self) -> float:
        """Seconds since 1970 UTC, for what clients and tokens see."""


class Link(Protocol):
    """The way to one client, whatever transport carries it."""

    @property
    def accepts_plain(self) -> bool:
        """Whether plain frames may be written now, with nothing else to think of."""

    @property
    def clogged(self) -> bool:
        """Whether so much waits already that the client has to read before it gets more."""

    @property
    def deflates(self) -> bool:
        """Whether frames are to be compressed for this client."""

    @property
    def buffered_bytes(self) -> int:
        """What was written and has not left this process yet."""

    @property
    def taken_bytes(self) -> int:
        """What has left this process; it stands still when the client does not read."""

    def when_writable(self, callback: Callable[[], object]) -> None:
        """Call back once, when the client has read most of what waits for it."""

    def write(self, frames: bytes) -> None:
        """Send one or more complete, unmasked WebSocket text frames."""

    def abort(self, reason: str) -> None:
        """End the connection now, without waiting for the client."""

    def disconnect(
        self, error: FloorcastError, *, reconnect: bool, namespace: str | None = None
    ) -> None:
        """Say goodbye and why, and whether to come back; then end, or end one namespace."""


def ignore(_: object) -> None:
    """Who does not care what a broker tells."""


class Broker(Protocol):
    """Gives positions, keeps what was published, and tells the nodes."""

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        """Begin; what keeps it from that is raised.

        `deliver` hears every entry of the watched channels, in order and without a gap; where one
        cannot be closed, or the history was lost, `on_reset` hears it instead, in its place.
        `on_state` hears when the broker is up, after everything was caught up with, and when not.
        """

    async def stop(self) -> None:
        """Give everything back; nothing is delivered afterwards."""

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        """Where a message went that was published under this claim; a false claim is refused."""

    async def publish(
        self,
        channel: str,
        data: bytes,
        ts_ms: int,
        *,
        kind: str = "update",
        claim: Claim | None = None,
        full_state: Callable[[], bytes] | None = None,
        in_history: bool = False,
        expected_head: Position | None = None,
    ) -> Receipt:
        """Accept one message; when this returns it has its place for good.

        Where the data is only a change, `whole` tells the state that it leads to. What is to be
        `kept` stands in the history for its time; of anything else only the latest does. Refused
        with `Moved` where the head is not the one that is expected.
        """

    async def head(self, channel: str) -> Position:
        """The position of the newest entry; seq 0 where there is none yet.

        The first entry takes up the epoch that was told here.
        """

    async def latest(self, channel: str) -> Entry | None:
        """The newest entry, for a snapshot: its data is the whole state."""

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        """Every kept entry after this position, or None where that cannot be told.

        Where the channel is watched here, all of it has been delivered by then.
        """

    async def before(self, channel: str, seq: int | None, limit: int) -> list[Entry]:
        """The last kept entries before this one, or the last of all, in their order."""

    async def forget(self, channel: str) -> None:
        """Let go of everything that is kept of a channel; its positions begin anew.

        Not of one that is watched: who listens to it would have to be told.
        """

    async def watch(self, channel: str) -> None:
        """This node has subscribers of the channel.

        Everything is delivered that comes after this has returned, whatever `head` says by then.
        """

    async def unwatch(self, channel: str) -> None:
        """The last subscriber of this node has gone."""


class PresenceManager(Protocol):
    """Knows who is in which session, over all nodes, and tells the nodes what happens there.

    Every connection is known by its id, so that the same said twice is said once.
    """

    async def start(self, on_event: Callable[[SessionEvent], None]) -> None:
        """Begin; `hear` is told what happens in the sessions whose channel is watched here."""

    async def stop(self) -> None:
        """Whoever is left here was cut off; nothing is heard afterwards."""

    @property
    def session_count(self) -> int:
        """How many sessions there are, as far as this node knows."""

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Participants:
        """A connection of this node comes in; the first makes the session.

        A refusal changes nothing. Where it cannot be told whether it is in, it is not.
        """

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        """It goes because it wants to; when this raises it is in as before."""

    def remove(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        """It has ended, which nothing can keep it from; whoever was `lost` has the grace time.

        What is asked of one connection comes to be in this order.
        """

    def can_rejoin(self, user_id: str, key: SessionKey) -> bool:
        """Whether a user could come back into a session, as far as this node knows."""

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        """A connection is back that was lost; where it has no place any more, `hear` is told."""

    async def kick(self, key: SessionKey, user_id: str) -> int:
        """A user goes at once, with so many connections.

        Refused where the user is not in, who then does not come back by itself either.
        """

    async def close(self, key: SessionKey) -> int:
        """Nobody may be in it any more; how many connections were."""

    async def participants(self, key: SessionKey) -> Participants | None:
        """Who is there now; None where there is no such session."""

    async def signal(self, key: SessionKey, connection_id: str, user_id: str, data: bytes) -> None:
        """Tell who is there something that is not kept."""

    async def sweep(self) -> Collection[SessionKey]:
        """Give up who did not come back in time; whose logs the broker is to let go."""


# Gives up a connection of this node to another one, with all that it takes along; at once, and
# never twice. None where it is not to be had back; where it is on its way to this node itself, what
# is done when it has come, or has not.
ExportConnection = Callable[[ResumeRequest], ConnectionState | asyncio.Task[bool] | None]


class Handover(Protocol):
    """Lets a connection be had back on another node than it was cut off on, exactly once."""

    @property
    def node(self) -> str:
        """How this node is known to the others; nothing where there are none."""

    async def start(self, export: ExportConnection) -> None:
        """Begin, after the broker; `give` is asked for what others want of this node."""

    async def stop(
        self, export_all: Callable[[], Collection[tuple[ResumeRequest, ConnectionState]]]
    ) -> None:
        """Nobody is given anything any more; all that this node has is left for the others."""

    async def fetch(self, request: ResumeRequest) -> ConnectionState | None:
        """The connection, from whoever has it, who has it no more; None where it is not to be had.

        Within a second, and in a task; what comes later is lost.
        """

    def forget(self, request: ResumeRequest) -> None:
        """One that was fetched is not to be had back any more."""


# Tells the devices of this node of a notice, critical or not; how many were told.
OnNotice = Callable[[Notice, bool], int]


class NoticeStore(Protocol):
    """Tells all nodes of notices for users, and keeps the critical ones until they are settled."""

    async def start(self, on_notice: OnNotice) -> None:
        """Begin; `hear` is told of every notice, on every node."""

    async def stop(self) -> None:
        """Nothing is heard afterwards."""

    @property
    def dropped_count(self) -> int:
        """How many had to make room for others."""

    async def post(self, notice: Notice, *, critical: bool) -> int | None:
        """Tell everybody; how many devices were told, or None where only other nodes could say.

        A critical one whose id was posted before is told to nobody: 0.
        """

    def pending(self, org: str, user_id: str) -> tuple[Notice, ...]:
        """The critical ones that no device of the user has acknowledged, in order."""

    def acknowledge(self, notice: Notice) -> None:
        """One device has it, and that settles it for the user."""

    def sweep(self) -> None:
        """Let go of what has waited for too long."""


class SharedLimits(Protocol):
    """Counts with the other nodes how many connections an address or a user has."""

    @property
    def is_degraded(self) -> bool:
        """Whether the last ones were let in without asking, for nobody answered."""

    async def acquire(self, key: LimitKey) -> None:
        """One more, unless it is refused; whoever is not answered in time is let in.

        What was taken is given back exactly once.
        """

    def release(self, key: LimitKey) -> None:
        """One less."""


class Publishing(Protocol):
    """What a feed may do: put messages into the market."""

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
    ) -> Position:
        """Validate, stamp and publish one message.

        `kind` is "update" or "snapshot". A private topic needs the `user` of an `org`; a public
        one has neither.
        """


class Feed(Protocol):
    """A source of market data."""

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled, or until the source has ended."""


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What every feed is built from; each takes of it what it needs."""

    clock: Clock
    """The time that paces the feed."""

    argument: str = ""
    """What stands after the colon of the feed's name: the file of `replay:FILE`."""

    symbols: int = 4
    """How many symbols a market that is made up has."""

    rate: float = 20.0
    """Steps a second of such a market, over all its symbols together."""

    seed: int = 1
    """The same seed is the same market."""

    speed: float = 1.0
    """How fast a recording plays: 2.0 is twice as fast as it was, 0 as fast as it goes."""


FeedFactory = Callable[[FeedOptions], Feed]
