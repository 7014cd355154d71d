"""Ports: the interfaces between the product and the parts that do I/O."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Protocol

from server.core.errors import FloorcastError
from server.core.limits.keys import LimitKey
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Entry, Position, Receipt, Reset
from server.core.log.idempotency import Claim
from server.core.occupancy.events import HookEvent, QueuedEvent
from server.core.occupancy.subjects import OccupancyChange, Subject
from server.core.occupancy.wills import User, Will
from server.core.recovery.connection_state import ConnectionState, ResumeRequest
from server.core.sessions.events import SessionEvent
from server.core.sessions.notices import Notice
from server.core.sessions.participants import Participants, SessionSummary
from server.core.sessions.records import SessionKey


class Clock(Protocol):
    """The time, injected so that tests control it.

    If `monotonic` ever steps back, deadlines fire late. Example: `monotonic() - began` is a
    duration, `time() >= principal.expires_at` a comparison with the wall clock.
    """

    def monotonic(self) -> float:
        """Seconds that never decrease, for durations and deadlines."""

    def time(self) -> float:
        """Seconds since 1970 UTC, for messages and tokens."""


class Link(Protocol):
    """The outgoing side of one client's connection, whatever its transport.

    The hub checks before it writes: `if link.accepts_plain: link.write(frames)`. So the flags
    must change at once; if `clogged` comes late, the buffer grows beyond its limit. A link never
    closes inside `write`: a failed write raises OSError or RuntimeError.
    """

    @property
    def accepts_plain(self) -> bool:
        """Whether uncompressed frames may be written now: neither `clogged` nor `deflates`."""

    @property
    def clogged(self) -> bool:
        """Whether the buffer is over its high-water mark: the client must read first."""

    @property
    def deflates(self) -> bool:
        """Whether the client negotiated permessage-deflate (RFC 7692)."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes written that have not left this process."""

    @property
    def taken_bytes(self) -> int:
        """Bytes that have left this process; constant while the client does not read."""

    def when_writable(self, callback: Callable[[], object]) -> None:
        """Call back once, as soon as the link is not `clogged`; at once if it is not now."""

    def write(self, frames: bytes) -> None:
        """Write one or more complete, unmasked WebSocket text frames (RFC 6455, section 5)."""

    def hold(self, frames: bytes) -> None:
        """Keep frames until `release` or the next write, which must write them first."""

    def release(self) -> None:
        """Write the held frames; no-op if there are none. Raises what `write` raises."""

    def abort(self, reason: str) -> None:
        """Close the connection now; buffered bytes are lost."""

    def disconnect(
        self, error: FloorcastError, *, reconnect: bool, namespace: str | None = None
    ) -> None:
        """Send a goodbye with `error`, then close the connection, or leave only `namespace`."""


def ignore(_: object) -> None:
    """A callback that does nothing."""


class Broker(Protocol):
    """Assigns positions, stores published entries, and delivers them to watching nodes.

    An implementation must deliver entries of a watched channel in order, once, and without a gap,
    or report a reset. Otherwise clients show wrong data without noticing. For example, if a node
    delivered seq 1 and pub/sub lost seq 2, it must read 2 from its log before it delivers 3.
    """

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        """Start; raises `BrokerError` if the broker is unavailable.

        `deliver` gets the entries of watched channels. If a gap cannot be filled or the history is
        lost, `on_reset` is called at that point instead, and delivery continues from its head.
        `on_state` gets True once all watched channels are up to date, and False on interruption.
        """

    async def stop(self) -> None:
        """Stop and close all connections; nothing is delivered afterwards."""

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        """The receipt of the message published under this claim, or None.

        Raises `RequestError` if another message was published under the claim's key.
        """

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
        owner: Owner = SERVER,
    ) -> Receipt:
        """Publish one message; once this returns, its position is final.

        If the data is only a change, `full_state` returns the resulting state. With `in_history`
        the entry stays in the history for its time, otherwise only until the next one; the history
        counts to the org of `owner`. With a `claim`, a retry returns the first receipt and
        publishes nothing. Raises `WriteConflict` if the head is not `expected_head`. If this raises
        another error, the outcome may be unknown.
        """

    async def head(self, channel: str) -> Position:
        """The position of the newest entry; seq 0 if there is none yet.

        The first entry must get the epoch returned here: subscribers start from this position.
        """

    async def latest(self, channel: str) -> Entry | None:
        """The newest entry with the full state as data, or None if there is none."""

    async def is_rolled_back(self, channel: str) -> bool:
        """Whether the latest full state of a book is from before a loss of data.

        Later changes may be lost, so a book must not continue from it.
        """

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        """All entries after this position, or None if some of them are unknown.

        If this node watches the channel, the returned entries must already be delivered:
        otherwise a resumed client gets them twice.
        """

    async def before(self, channel: str, seq: int | None, limit: int) -> list[Entry]:
        """The last history entries before a seq, or the newest ones, oldest first."""

    async def forget(self, channel: str, *, silent_since_ms: int | None = None) -> bool:
        """Delete a channel; its next entry starts a new epoch.

        Returns False, and deletes nothing, if a node watches it, if its newest entry is younger
        than `silent_since_ms`, or if the broker is unavailable.
        """

    async def add_topic(self, channel: str, owner: Owner) -> None:
        """Count a topic for its owner over all nodes, before this node publishes there.

        Raises `LimitError` if the owner, its org or all have too many. A broker of one process
        need not count: `TopicShares` has counted this node's topics already.
        """

    async def watch(self, channel: str) -> None:
        """Start delivery of a channel to this node.

        Every entry published after this returns must be delivered, whatever `head` returns then.
        """

    async def unwatch(self, channel: str) -> None:
        """Stop delivery of a channel to this node; no-op if it is not watched."""


class PresenceManager(Protocol):
    """Tracks the participants of sessions over all nodes and emits events about them.

    Calls are idempotent by connection id. An implementation must emit the events of one session in
    order, each change with a higher revision: receivers skip changes they already know. For
    example, if ann joins on two devices, only the first emits JOINED.
    """

    async def start(self, on_event: Callable[[SessionEvent], None]) -> None:
        """Start; `on_event` gets the events of sessions whose channel this node watches."""

    async def stop(self) -> None:
        """Stop; remaining connections count as lost, and no event is emitted afterwards."""

    @property
    def session_count(self) -> int:
        """The number of sessions over all nodes, as far as this node knows."""

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Participants:
        """Add a connection of this node; the first one creates the session.

        Raises `FloorcastError` if the session is closed, full, or may not be created; then nothing
        changes. If the outcome is unknown (a timeout), the connection counts as not joined.
        """

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        """Remove a connection that leaves deliberately; if this raises, it is still in."""

    def remove(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        """Record that a connection has ended; never fails, and applies in call order.

        If `lost`, its user keeps presence for the grace period.
        """

    def can_rejoin(self, user_id: str, key: SessionKey) -> bool:
        """Whether a user may rejoin a session, as far as this node knows."""

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        """Restore a lost connection; if it is not accepted, a REFUSED event is emitted."""

    async def kick(self, key: SessionKey, user_id: str) -> int:
        """Remove a user with all connections; returns how many there were.

        Raises `FloorcastError` if the user is not in the session. A BARRED event is emitted then,
        which discards the user's parked connections.
        """

    async def close(self, key: SessionKey) -> int:
        """Close a session and remove everybody; returns the number of connections."""

    async def participants(self, key: SessionKey) -> Participants | None:
        """The current participants; None if there is no such session."""

    async def sessions_of(self, org: str, after: str, limit: int) -> Sequence[SessionSummary]:
        """The sessions of an org whose ids follow `after`, sorted by id."""

    async def events_since(self, key: SessionKey, revision: int) -> Sequence[SessionEvent] | None:
        """The events of a session after a revision, oldest first; None if some are unknown."""

    async def signal(self, key: SessionKey, connection_id: str, user_id: str, data: bytes) -> None:
        """Emit a signal to the participants; it is not stored."""

    async def sweep(self) -> Collection[SessionKey]:
        """Remove users whose grace period is over; returns the sessions whose logs to forget."""


# Exports a parked connection to another node and drops it here, atomically: never twice. Returns
# None if it cannot be resumed, or a task to wait for while this node itself fetches it.
ExportConnection = Callable[[ResumeRequest], ConnectionState | asyncio.Task[bool] | None]


class Handover(Protocol):
    """Hands parked connections to other nodes, so that a client can resume on any node.

    An implementation must return each connection at most once: two nodes that resume the same one
    would both deliver to it. For example, `fetch` deletes a saved connection as it reads it.
    """

    @property
    def node(self) -> str:
        """The name by which other nodes address this one; empty without other nodes."""

    async def start(self, export: ExportConnection) -> None:
        """Start, after the broker; `export` answers the requests of other nodes."""

    async def stop(
        self, export_all: Callable[[], Collection[tuple[ResumeRequest, ConnectionState]]]
    ) -> None:
        """Stop exporting, and save what `export_all` returns for other nodes."""

    async def fetch(self, request: ResumeRequest) -> ConnectionState | None:
        """Take over a parked connection from the node that holds it; None if there is none.

        Must be called in a task, and takes at most a second. A reply that comes later is lost.
        """

    def forget(self, request: ResumeRequest) -> None:
        """Forget the location of a fetched connection that can no longer be resumed."""


# Sends a notice, critical or not, to the devices on this node; returns how many got it.
OnNotice = Callable[[Notice, bool], int]


class NoticeStore(Protocol):
    """Distributes notices to all nodes, and stores critical ones until acknowledged.

    A critical notice must survive until one device acknowledges it, its time is over, or the store
    is full. For example, a user who is offline when it is posted gets it on connecting to any node.
    """

    async def start(self, on_notice: OnNotice) -> None:
        """Start; `on_notice` gets every notice, on every node."""

    async def stop(self) -> None:
        """Stop; `on_notice` is not called afterwards."""

    @property
    def dropped_count(self) -> int:
        """The number of notices evicted because the store was full."""

    async def post(self, notice: Notice, *, critical: bool) -> int | None:
        """Distribute a notice; returns the number of devices, or None if unknown.

        A critical notice whose id was posted before is not sent again: 0.
        """

    def pending(
        self, org: str, user_id: str
    ) -> tuple[Notice, ...] | asyncio.Future[tuple[Notice, ...]]:
        """The critical notices that no device of the user has acknowledged, oldest first.

        At once if they are known here, else a future of a read that has begun. Called when a
        device connects, which waits for the future, and for all users of this node once the broker
        is available again: notices may have been missed. After half a second at most it must raise
        `FloorcastError`, as the future may: then the device connects without, and they are read
        again later.
        """

    def acknowledge(self, notice: Notice) -> None:
        """Acknowledge a notice for all devices of its user."""

    def sweep(self) -> Sequence[Notice]:
        """Drop the notices whose time is over, and return those that this node has dropped."""


# Gets a key and its value; None if it was deleted or its time is over.
OnKeptChange = Callable[[str, bytes | None], None]


class KeptValues(Protocol):
    """Keeps small values by kind and key until they expire, the same on all nodes.

    What `put` or `delete` has returned must outlive the process as acknowledged messages do, and a
    value must be gone at its time. For example, a token that is revoked on one node must be refused
    on all others at once, and by a node that starts later.
    """

    def follow(self, kind: str, on_change: OnKeptChange) -> None:
        """Call back about all values of a kind; before `start`, and for some thousand values.

        `start` calls back for each value there is. Later calls are in the order of the changes,
        whichever node made them; one of this node's is called before `put` or `delete` returns. A
        change that another one follows at once may be left out. `on_change` must not raise.
        """

    async def start(self) -> None:
        """Start, after the broker; raises `BrokerError` if the values cannot be read."""

    async def stop(self) -> None:
        """Stop; nothing is called back afterwards."""

    async def put(self, kind: str, values: Mapping[str, bytes], *, expires_at: float) -> None:
        """Keep values, all or none, until a time in seconds since 1970; replaces earlier ones.

        A no-op if that time is over. Raises `LimitError` if there are too many, or they are too
        large together. If this raises another error, the outcome may be unknown.
        """

    async def get(self, kind: str, key: str) -> bytes | None:
        """The value, or None."""

    async def items(self, kind: str) -> dict[str, bytes]:
        """All values of a kind by key, in no order."""

    async def delete(self, kind: str, key: str) -> bool:
        """Delete a value; returns False if there was none."""

    def sweep(self) -> None:
        """Call back for the values whose time is over."""


class SharedLimits(Protocol):
    """Limits the connections of an address or a user over all nodes.

    An implementation must not exceed a limit while its storage is available, and must admit
    connections while it is not. For example, two nodes that each hold 4 of 7 connections would
    break the limit, but a node that waits for a dead Redis would refuse everybody.
    """

    @property
    def is_degraded(self) -> bool:
        """Whether connections are currently admitted without asking, due to a missing answer."""

    async def acquire(self, key: LimitKey) -> None:
        """Acquire one connection; raises `LimitError` if there are too many.

        Without an answer in time the connection is admitted. Callers must `release` exactly once.
        """

    def release(self, key: LimitKey) -> None:
        """Release one acquired connection."""


class Occupancy(Protocol):
    """Knows over all nodes which users, sessions and topics are in use, and keeps wills.

    An implementation must emit each change once over all nodes, and queue its event for the hooks
    in the same step: a node that dies in between must lose neither. For example, the last node of
    a user dies: another one emits that the user is offline, and returns its will as due.
    """

    @property
    def node(self) -> str:
        """The name of this node in events."""

    async def start(
        self,
        on_change: Callable[[OccupancyChange], None],
        on_will_due: Callable[[Will], None],
    ) -> None:
        """Start; `on_change` gets the changes that this node notices, on no other node.

        `on_will_due` gets the wills that this node must publish. A will is due again on some node
        after a few seconds, until `settle_will`.
        """

    async def stop(self) -> None:
        """Stop; what this node still uses counts as left."""

    def enter(self, subject: Subject, *, resumed: bool = False) -> None:
        """Record that this node uses a subject; never fails.

        If it is a user whose will is counting, this takes back the will, unless `resumed`.
        """

    def leave(self, subject: Subject) -> None:
        """Record that this node no longer uses a subject; never fails.

        If no node does, it is vacated after the grace time.
        """

    async def put_will(self, will: Will) -> None:
        """Set or replace a user's will; raises `LimitError` beyond a share of its org."""

    async def remove_will(self, user: User) -> None:
        """Take back a user's will; a no-op if there is none."""

    async def settle_will(self, will: Will) -> None:
        """Remove a will that has been published, unless it was replaced."""

    async def last_seen(self, user: User) -> int | None:
        """When the user's last connection ended, in ms since 1970.

        None while the user is connected, and if that is unknown or too long ago.
        """

    def tick(self) -> None:
        """Emit what is due."""


@dataclass(frozen=True, slots=True)
class NodeFeeds:
    """The channels of a node's live feeds, by feed; of a large feed only the first ones."""

    node: str
    feeds: Mapping[str, Sequence[str]]


class FeedWatch(Protocol):
    """Knows which channels the feeds of all nodes publish to, and notices a node that died.

    An implementation must report each dead node on one living node, which marks the channels on
    all, and no node that has stopped. For example, one of two nodes with the same feed dies: its
    channels are published all the same, so `on_dead` gets what the living nodes have announced.
    """

    def start(
        self,
        on_dead: Callable[[NodeFeeds, Sequence[NodeFeeds]], None],
        on_rejoined: Callable[[], None],
    ) -> None:
        """Start, before `Occupancy`; `on_dead` gets a dead node's feeds, and those of the living.

        `on_rejoined`: this node may have been taken for dead, and announces its feeds again.
        """

    def announce(self, feeds: Mapping[str, Sequence[str]]) -> None:
        """Replace what this node's feeds publish to; never fails."""


class HookQueue(Protocol):
    """Keeps events until a receiver has them.

    An implementation must return events in the order of their appending, over all nodes, and to
    one node at a time: two nodes that send events of one user would reorder them.
    """

    @property
    def waiting(self) -> int:
        """The number of events in the queue, as far as this node knows."""

    def append(self, event: HookEvent) -> None:
        """Add an event; never fails. If the queue is full, the oldest is dropped and counted."""

    async def take(self, limit: int) -> Sequence[QueuedEvent]:
        """The oldest events, which stay in the queue; none while another node sends them."""

    async def confirm(self, last: QueuedEvent) -> None:
        """Remove the events up to this one."""

    async def wait(self, seconds: float) -> None:
        """Wait until an event may have been appended, at most this long."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of nodes by their names, and the nodes that gave none in time."""

    by_node: Mapping[str, bytes]
    missing: tuple[str, ...] = ()


AnswerQuestion = Callable[[bytes], Awaitable[bytes]]


class Cluster(Protocol):
    """Asks all nodes a question and collects their answers, this node's included.

    An implementation must name every running node whose answer is missing: callers take the rest
    for complete. For example, a node that hangs is in `missing` until its lease has expired.
    """

    @property
    def node(self) -> str:
        """The name of this node, for as long as it runs."""

    async def start(self, answer: AnswerQuestion) -> None:
        """Start, after the broker; `answer` answers the questions of all nodes."""

    async def stop(self) -> None:
        """Stop answering the questions of other nodes."""

    async def ask(self, question: bytes) -> Answers:
        """Ask all nodes; takes at most a second. This node answers even if others cannot be asked.

        Raises what this node's own `answer` raises; a node that cannot answer is in `missing`.
        """


@dataclass(frozen=True, slots=True)
class Backend:
    """What a server stores and shares with other nodes, and by what."""

    broker: Broker
    presence: PresenceManager
    notices: NoticeStore
    handover: Handover
    kept: KeptValues
    cluster: Cluster
    occupancy: Occupancy
    hook_queue: HookQueue
    # None if connections are counted on each node alone.
    shared_limits: SharedLimits | None = None
    # None if nodes notice the end of another node's feeds by their silence alone.
    feed_watch: FeedWatch | None = None
    # Whether a client that leaves for a restart can return only to the next run of this process.
    is_resumed_by_next_run: bool = False


@dataclass(frozen=True, slots=True)
class ApplicationBackend:
    """A backend of the application: its broker, and what else its nodes share.

    What is None is kept in memory, which is right for one node. With several nodes, give presence
    and a handover too: otherwise each node knows only its own members.
    """

    broker: Broker
    presence: PresenceManager | None = None
    notices: NoticeStore | None = None
    handover: Handover | None = None
    kept: KeptValues | None = None
    shared_limits: SharedLimits | None = None
    cluster: Cluster | None = None
    # Both or none: the first queues its changes in the second.
    occupancy: Occupancy | None = None
    hook_queue: HookQueue | None = None


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """The options that a backend of an installed package is built from."""

    url: str = field(repr=False)
    """`broker.url`, whose scheme names the entry point; it may contain a password."""

    prefix: str
    """`broker.prefix`: what keeps two installations apart in one store."""

    clock: Clock
    """The clock of the server."""


BackendFactory = Callable[[BackendOptions], ApplicationBackend]


class Publishing(Protocol):
    """What a feed publishes through.

    A feed owns neither sequence numbers nor timestamps: the implementation assigns both, so that
    two feeds of one topic cannot disagree. Example:

        await publishing.publish("PRICE:BTCUSDT", {"bid": "1.0", "ask": "1.1"})
    """

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
        source_ts: int | None = None,
        identifier: str | None = None,
    ) -> Position:
        """Validate, stamp and publish one message; return its position.

        `kind` is "update" or "snapshot". `source_ts` is the source's own time of the message, in ms
        since 1970. A private topic needs the `user` of an `org`; a public topic must have no user.
        An `identifier`, such as the source's offset, is published once: after a restart, and by
        two nodes, within `market.idempotency_seconds`. Raises a `FloorcastError` if the message is
        invalid or the broker is unavailable; the feed may go on after it.
        """

    async def publish_book(
        self,
        symbol: str,
        bids: Iterable[tuple[str, str]],
        asks: Iterable[tuple[str, str]],
        *,
        source_ts: int | None = None,
    ) -> Position | None:
        """Publish what has changed since this feed's last book of the symbol.

        Give the whole book each time, as `(price, quantity)`. Returns None if nothing has changed.
        Raises as `publish` does; the next book is then published as a snapshot.
        """

    async def latest(self, topic: str) -> Mapping[str, object] | None:
        """The data of the newest message of a public topic, of any publisher; None if it has none.

        Of a book it is the whole book. Raises a `FloorcastError` if the broker is unavailable.
        """

    async def set_instrument(self, symbol: str, fields: Mapping[str, object]) -> None:
        """Set reference data or the trading state of a symbol; other fields stay.

        Known fields are `base`, `quote`, `tick_size`, `lot_size` and `status` (OPEN, HALTED,
        CLOSED); None removes one. Example: `set_instrument("A", {"status": "HALTED"})`.
        """

    def demand(
        self, symbols: Collection[str] | None = None, *, grace_seconds: float = 10.0
    ) -> AsyncIterator[frozenset[str]]:
        """Yield the public topics that somebody listens to on any node: at once, and each change.

        All of them each time, such as `{"PRICE:BTCUSDT"}`. A view counts as its source, a pattern
        as all `symbols` that match; without `symbols`, as the known instruments that do, and topics
        of other feeds are among them. A topic stays for `grace_seconds` after the last listener.
        """

    def set_stale(self, topics: Collection[str], reason: str) -> None:
        """Mark public topics STALE on all nodes, each until its next message.

        For what is known to be wrong, such as a book whose checksum differs: its next
        `publish_book` publishes a snapshot.
        """


class Feed(Protocol):
    """A source of market data. Example:

    class Ticker:
        def __init__(self, options: FeedOptions) -> None: ...

        async def run(self, publishing: Publishing) -> None:
            while True:
                await publishing.publish("PRICE:A", await self._next_price())
    """

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled, or until the source ends.

        It must await between messages and must not swallow `CancelledError`: otherwise it blocks
        every client of the process, or the shutdown.
        """


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """The options that every feed is built from; a feed reads those it needs."""

    clock: Clock
    """The clock that times the feed."""

    argument: str = ""
    """The text after the colon of the feed's name: the file of `replay:FILE`."""

    name: str = ""
    """The feed's name in logs and metrics: that of `feed.name`, or of its table of options."""

    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The table `[feed.NAME]`; may contain passwords."""

    symbols: int = 4
    """The number of symbols in a simulated market."""

    symbol_names: tuple[str, ...] = ()
    """The symbols to publish, if `feed.symbols` names them."""

    rate: float = 20.0
    """Steps per second of a simulated market, over all its symbols together."""

    seed: int = 1
    """The seed of a simulated market: the same seed gives the same market."""

    speed: float = 1.0
    """The replay speed: 2.0 is twice the recorded speed, 0 is without pauses."""


FeedFactory = Callable[[FeedOptions], Feed]
