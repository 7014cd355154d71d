"""Holds the subscribers of one channel on this node, in tiers by interval."""

from collections.abc import Iterator
from typing import NamedTuple

from server.core.log.backlog import Lag
from server.core.log.entries import Entry, Reset
from server.core.market.topic_state import ChannelState
from server.core.recovery.checkpoints import SerialIndex
from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import PushLog
from server.core.recovery.write_index import BatchIndex, WriteIndex
from server.delivery.clients import Client
from server.ports import Link

# About the size of an event's name, fields and offset.
_EVENT_OVERHEAD_BYTES = 160
# Merged topics need no older writes: a snapshot does as well.
_MAX_MERGED_WRITES = 128
_MAX_BATCHES = 64
_MAX_PUSHES = 1000
_MAX_PUSH_BYTES = 256 * 1024

Group = dict[Link, Client]


class Tier:
    """The clients of one interval; synced ones share position and encoded bytes."""

    __slots__ = ("batches", "groups", "interval_ms", "last_seq", "oldest_ms", "unsynced")

    def __init__(self, interval_ms: int, last_seq: int) -> None:
        self.interval_ms = interval_ms
        # The newest entry sent to all synced clients, and the time of the first one not sent.
        self.last_seq = last_seq
        self.oldest_ms: int | None = None
        # Synced clients: without offsets, and with.
        self.groups: tuple[Group, Group] = ({}, {})
        # Clients at another position: new subscribers and slow consumers.
        self.unsynced: dict[Client, Lag] = {}
        self.batches = BatchIndex(max_batches=_MAX_BATCHES)

    def __len__(self) -> int:
        return len(self.groups[0]) + len(self.groups[1]) + len(self.unsynced)

    def group(self, client: Client) -> Group:
        """The group a synced client belongs to."""
        return self.groups[client.checkpoints is not None]

    def synced(self) -> list[Client]:
        """All clients at the tier's position."""
        return [*self.groups[0].values(), *self.groups[1].values()]


class Batch(NamedTuple):
    """Entries of one turn as one write for the immediate tier: without offsets, and with."""

    frames: tuple[bytes, bytes]
    serial: int
    prev: int
    oldest_ms: int
    message_count: int


class Channel:
    """One topic or session: its state, its tiers, and the entries pending in this turn."""

    __slots__ = (
        "_offsets",
        "_pending",
        "_pending_bytes",
        "_reset_at",
        "_up_to_date",
        "active_at",
        "conflated",
        "immediate",
        "name",
        "parked",
        "push_log",
        "reset_serial",
        "stale_since_ms",
        "state",
        "status_serial",
        "write_index",
    )

    def __init__(
        self,
        name: str,
        state: ChannelState,
        now: float,
        *,
        offsets: Offsets,
        max_messages: int,
        recoverable: bool,
    ) -> None:
        self.name = name
        self.state = state
        self._offsets = offsets
        self.immediate = Tier(0, state.position.seq)
        self.conflated: dict[int, Tier] = {}
        # Disconnected clients that may resume.
        self.parked: dict[Client, None] = {}
        # The monotonic time of the last message; its wall clock time while the feed is stale.
        self.active_at = now
        self.stale_since_ms: int | None = None
        # The serials of the last status event and of the last reset.
        self.status_serial = self.reset_serial = 0
        self.write_index: WriteIndex | None = None
        self.push_log: PushLog | None = None
        if recoverable:
            limit = min(max_messages, _MAX_MERGED_WRITES) if state.merges else max_messages
            self.write_index = WriteIndex(state.position.seq, max_messages=limit)
            self.push_log = PushLog(max_count=_MAX_PUSHES, max_bytes=_MAX_PUSH_BYTES)
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        # The index of the pending entry that does not follow the one before it.
        self._reset_at: int | None = None
        # Unsynced clients that have the newest entry.
        self._up_to_date: dict[Client, Lag] = {}

    def __repr__(self) -> str:
        return f"<Channel {self.name} {len(self)}>"

    def __len__(self) -> int:
        return len(self.immediate) + sum(map(len, self.conflated.values()))

    @property
    def is_needed(self) -> bool:
        """Whether the channel has subscribers or parked clients."""
        return bool(len(self) or self.parked)

    def parked_ids(self) -> tuple[str, ...]:
        """The connection ids of disconnected clients that may resume."""
        return tuple(client.id for client in self.parked)

    @property
    def up_to_date_count(self) -> int:
        """The number of unsynced clients that have the newest entry."""
        return len(self._up_to_date)

    def clients(self) -> list[Client]:
        """All subscribers, as a copy."""
        return [client for tier in self.tiers() for client in (*tier.synced(), *tier.unsynced)]

    def clients_with_seq(self) -> list[tuple[Client, int]]:
        """All subscribers, each with the seq of the last entry sent to it."""
        return [
            each
            for tier in self.tiers()
            for each in (
                *((client, tier.last_seq) for client in tier.synced()),
                *((client, lag.last_seq) for client, lag in tier.unsynced.items()),
            )
        ]

    def tiers(self) -> Iterator[Tier]:
        """All tiers, the immediate one first."""
        yield self.immediate
        yield from self.conflated.values()

    def status(self) -> bytes | None:
        """The feed's state as an event; None if the channel has no feed."""
        return self.state.status(self.stale_since_ms)

    # --- entries

    def accept(self, entry: Entry) -> bool:
        """Accept the next entry; True if the flusher has to write it in this turn."""
        before = self.state.position
        if not self.state.accept(entry):
            return False
        ts_ms = entry.ts_ms
        position = entry.position
        if position.epoch != before.epoch or position.seq != before.seq + 1:
            self._reset_at = len(self._pending)
        if self._up_to_date:
            for lag in self._up_to_date.values():
                lag.oldest_ms = ts_ms
            self._up_to_date.clear()
        for tier in self.conflated.values():
            if tier.oldest_ms is None:
                tier.oldest_ms = ts_ms
        plain, numbered = self.immediate.groups
        if not plain and not numbered and self.write_index is None:
            self.immediate.last_seq = position.seq
            return False
        self._pending.append(entry)
        self._pending_bytes += len(entry.data) + _EVENT_OVERHEAD_BYTES
        return True

    def reset(self, reset: Reset) -> None:
        """Restart at this position. All tiers must be empty and nothing may be pending."""
        assert not self._pending
        self.state.reset(reset.head, reset.latest)
        if self.write_index is not None:
            self.write_index.restart(reset.head.seq)
        for tier in self.tiers():
            tier.last_seq, tier.oldest_ms = reset.head.seq, None

    def pending_bytes(self) -> int:
        """The approximate size of the pending entries for one client."""
        return self._pending_bytes

    def take_batches(self, max_batch_bytes: int) -> list[Batch]:
        """Number and encode the pending entries; the immediate tier counts as having them."""
        entries, self._pending = self._pending, []
        self._pending_bytes = 0
        self.immediate.last_seq = self.state.position.seq
        if not entries:
            return []
        serial = self._offsets.allocate(len(entries))
        if self.write_index is not None:
            self._index_writes(self.write_index, serial, entries)
        plain, numbered = self.immediate.groups
        if not plain and not numbered:
            return []
        batches = []
        for run in _split(entries, max_batch_bytes):
            events = list(map(self.state.event, run))
            frames = (
                b"".join(map(plain_frame, events)) if plain else b"",
                b"".join(map(self._offsets.frame, events, range(serial, serial + len(events))))
                if numbered
                else b"",
            )
            first = run[0]
            batches.append(Batch(frames, serial, first.position.seq - 1, first.ts_ms, len(run)))
            serial += len(run)
        return batches

    def _index_writes(self, write_index: WriteIndex, serial: int, entries: list[Entry]) -> None:
        if self._reset_at is not None:
            for number, entry in enumerate(entries[: self._reset_at], serial):
                write_index.append(number, entry.ts_ms)
            serial, entries = serial + self._reset_at, entries[self._reset_at :]
            write_index.restart(entries[0].position.seq - 1)
            self.reset_serial, self._reset_at = serial, None
        for number, entry in enumerate(entries, serial):
            write_index.append(number, entry.ts_ms)

    # --- subscribers

    def tier(self, interval_ms: int) -> Tier:
        """The tier of this interval, created if needed."""
        if interval_ms == 0:
            return self.immediate
        tier = self.conflated.get(interval_ms)
        if tier is None:
            tier = self.conflated[interval_ms] = Tier(interval_ms, self.state.position.seq)
        return tier

    def sync(self, tier: Tier, client: Client) -> None:
        """Add a client that is at its tier's position to the synced ones."""
        tier.group(client)[client.link] = client
        if client.checkpoints is not None:
            writes: SerialIndex | None = tier.batches if tier.interval_ms else self.write_index
            client.add_checkpoint(
                self, self._offsets.last_serial, tier.last_seq, shared_index=writes
            )

    def join(self, client: Client, interval_ms: int, lag: Lag) -> bool:
        """Add a client to a tier; False if it stays unsynced."""
        tier = self.tier(interval_ms)
        if lag.last_seq == tier.last_seq and not lag.has_pending:
            self.sync(tier, client)
            return True
        tier.unsynced[client] = lag
        client.add_checkpoint(self, self._offsets.last_serial, lag.last_seq, lag=lag)
        if lag.last_seq == self.state.position.seq:
            # The next entry will be the first it lacks.
            lag.oldest_ms = None
            self._up_to_date[client] = lag
        return False

    def leave(self, client: Client, interval_ms: int) -> Lag:
        """Remove a client from a tier and return its lag."""
        self._up_to_date.pop(client, None)
        tier = self.tier(interval_ms)
        lag = tier.unsynced.pop(client, None)
        if lag is None:
            # May be absent: `_send_merged` empties the groups while it writes.
            tier.group(client).pop(client.link, None)
            lag = Lag(tier.last_seq, tier.oldest_ms)
        return lag


def _split(entries: list[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    """Split entries into runs of at most `max_bytes`, at least one entry each."""
    if len(entries) == 1:
        yield entries
        return
    run: list[Entry] = []
    remaining_bytes = max_bytes
    for entry in entries:
        remaining_bytes -= len(entry.data) + _EVENT_OVERHEAD_BYTES
        if run and remaining_bytes < 0:
            yield run
            run, remaining_bytes = [], max_bytes - len(entry.data) - _EVENT_OVERHEAD_BYTES
        run.append(entry)
    yield run
