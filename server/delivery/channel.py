"""The subscribers of one topic on this node, in tiers by their pace."""

from collections.abc import Iterator
from typing import NamedTuple

from server.core.log.backlog import Lag
from server.core.log.entries import Entry, Reset
from server.core.recovery.checkpoints import SerialIndex
from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import PushLog
from server.core.recovery.write_index import BatchIndex, WriteIndex
from server.delivery.clients import Client
from server.delivery.topic_state import ChannelState
from server.ports import Link

# An event's name, its fields and its offset, about.
_EVENT_OVERHEAD_BYTES = 160
# Older places of a merged topic are not worth their memory: a snapshot does as well.
_MAX_MERGED_WRITES = 128
_MAX_BATCHES = 64
_MAX_PUSHES = 1000
_MAX_PUSH_BYTES = 256 * 1024

Group = dict[Link, Client]


class Tier:
    """Clients of one pace: nearly all stand at the same message, and share its bytes."""

    __slots__ = ("batches", "groups", "interval_ms", "last_seq", "oldest_ms", "unsynced")

    def __init__(self, interval_ms: int, last_seq: int) -> None:
        self.interval_ms = interval_ms
        # What every synced client has got, and when the first message came that none has.
        self.last_seq = last_seq
        self.oldest_ms: int | None = None
        # The synced ones: those who want no offsets, and those who do.
        self.groups: tuple[Group, Group] = ({}, {})
        # Those who stand elsewhere: they just came, or did not take their bytes.
        self.unsynced: dict[Client, Lag] = {}
        self.batches = BatchIndex(max_batches=_MAX_BATCHES)

    def __len__(self) -> int:
        return len(self.groups[0]) + len(self.groups[1]) + len(self.unsynced)

    def group(self, client: Client) -> Group:
        """Where a client is, or would be, when it is synced."""
        return self.groups[client.checkpoints is not None]

    def synced(self) -> list[Client]:
        """Everybody who stands where the tier stands."""
        return [*self.groups[0].values(), *self.groups[1].values()]


class Batch(NamedTuple):
    """Updates of one turn for those who get every one, as one write; with and without offsets."""

    frames: tuple[bytes, bytes]
    serial: int
    prev: int
    oldest_ms: int
    message_count: int


class Channel:
    """One topic or session with its view, its tiers, and what waits for the end of this turn."""

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
        # Those who were cut off and may be back: what they miss is kept for them.
        self.parked: dict[Client, None] = {}
        # When the feed was last heard; the moment of its last message, while it is silent.
        self.active_at = now
        self.stale_since_ms: int | None = None
        # The writes before which nobody knows the feed's state, or what led to where it is.
        self.status_serial = self.reset_serial = 0
        self.write_index: WriteIndex | None = None
        self.push_log: PushLog | None = None
        if recoverable:
            limit = min(max_messages, _MAX_MERGED_WRITES) if state.merges else max_messages
            self.write_index = WriteIndex(state.position.seq, max_messages=limit)
            self.push_log = PushLog(max_count=_MAX_PUSHES, max_bytes=_MAX_PUSH_BYTES)
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        # Which of those that wait does not follow the one before it.
        self._reset_at: int | None = None
        # Who lacks nothing yet, but stands beside its tier.
        self._up_to_date: dict[Client, Lag] = {}

    def __repr__(self) -> str:
        return f"<Channel {self.name} {len(self)}>"

    def __len__(self) -> int:
        return len(self.immediate) + sum(map(len, self.conflated.values()))

    @property
    def is_needed(self) -> bool:
        """Whether anybody listens, or may be back to do so."""
        return bool(len(self) or self.parked)

    def parked_ids(self) -> tuple[str, ...]:
        """The connections that were cut off and may be back."""
        return tuple(client.id for client in self.parked)

    @property
    def up_to_date_count(self) -> int:
        """How many lack nothing yet, but stand beside their tier."""
        return len(self._up_to_date)

    def clients(self) -> list[Client]:
        """Everybody who listens, at this moment."""
        return [client for tier in self.tiers() for client in (*tier.synced(), *tier.unsynced)]

    def clients_with_seq(self) -> list[tuple[Client, int]]:
        """Everybody who listens, each with the last message that they have."""
        return [
            each
            for tier in self.tiers()
            for each in (
                *((client, tier.last_seq) for client in tier.synced()),
                *((client, lag.last_seq) for client, lag in tier.unsynced.items()),
            )
        ]

    def tiers(self) -> Iterator[Tier]:
        """All paces."""
        yield self.immediate
        yield from self.conflated.values()

    def status(self) -> bytes | None:
        """Whether the feed speaks, as an event; None where there is none."""
        return self.state.status(self.stale_since_ms)

    # --- what comes

    def accept(self, entry: Entry) -> bool:
        """Take the next entry; whether anybody waits for it at the end of this turn."""
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
        """Begin anew there; nobody must be in a tier while the ground is moved, and none waits."""
        assert not self._pending
        self.state.reset(reset.head, reset.latest)
        if self.write_index is not None:
            self.write_index.restart(reset.head.seq)
        for tier in self.tiers():
            tier.last_seq, tier.oldest_ms = reset.head.seq, None

    def pending_bytes(self) -> int:
        """About how much waits for each client of the immediate tier."""
        return self._pending_bytes

    def take_batches(self, max_batch_bytes: int) -> list[Batch]:
        """What waits for the immediate tier, which has it from now on, numbered and encoded."""
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
        pieces = []
        for part in _split(entries, max_batch_bytes):
            events = list(map(self.state.event, part))
            frames = (
                b"".join(map(plain_frame, events)) if plain else b"",
                b"".join(map(self._offsets.frame, events, range(serial, serial + len(events))))
                if numbered
                else b"",
            )
            first = part[0]
            pieces.append(Batch(frames, serial, first.position.seq - 1, first.ts_ms, len(part)))
            serial += len(part)
        return pieces

    def _index_writes(self, write_index: WriteIndex, serial: int, entries: list[Entry]) -> None:
        if self._reset_at is not None:
            for number, entry in enumerate(entries[: self._reset_at], serial):
                write_index.append(number, entry.ts_ms)
            serial, entries = serial + self._reset_at, entries[self._reset_at :]
            write_index.restart(entries[0].position.seq - 1)
            self.reset_serial, self._reset_at = serial, None
        for number, entry in enumerate(entries, serial):
            write_index.append(number, entry.ts_ms)

    # --- who listens

    def tier(self, interval_ms: int) -> Tier:
        """The clients of this pace."""
        if interval_ms == 0:
            return self.immediate
        tier = self.conflated.get(interval_ms)
        if tier is None:
            tier = self.conflated[interval_ms] = Tier(interval_ms, self.state.position.seq)
        return tier

    def sync(self, tier: Tier, client: Client) -> None:
        """The client stands where its tier stands, and goes with it from now on."""
        tier.group(client)[client.link] = client
        if client.checkpoints is not None:
            writes: SerialIndex | None = tier.batches if tier.interval_ms else self.write_index
            client.add_checkpoint(
                self, self._offsets.last_serial, tier.last_seq, shared_index=writes
            )

    def join(self, client: Client, interval_ms: int, lag: Lag) -> bool:
        """Put a client into a tier; False where it does not stand where the tier stands."""
        tier = self.tier(interval_ms)
        if lag.last_seq == tier.last_seq and not lag.has_pending:
            self.sync(tier, client)
            return True
        tier.unsynced[client] = lag
        client.add_checkpoint(self, self._offsets.last_serial, lag.last_seq, lag=lag)
        if lag.last_seq == self.state.position.seq:
            # The next message is the first that it lacks.
            lag.oldest_ms = None
            self._up_to_date[client] = lag
        return False

    def leave(self, client: Client, interval_ms: int) -> Lag:
        """Take a client out; how far it had come."""
        self._up_to_date.pop(client, None)
        tier = self.tier(interval_ms)
        lag = tier.unsynced.pop(client, None)
        if lag is None:
            # Not there either while its tier is being served, and a write of its own fails.
            tier.group(client).pop(client.link, None)
            lag = Lag(tier.last_seq, tier.oldest_ms)
        return lag


def _split(entries: list[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    """The entries in runs that are one write each."""
    if len(entries) == 1:
        yield entries
        return
    part: list[Entry] = []
    room = max_bytes
    for entry in entries:
        room -= len(entry.data) + _EVENT_OVERHEAD_BYTES
        if part and room < 0:
            yield part
            part, room = [], max_bytes - len(entry.data) - _EVENT_OVERHEAD_BYTES
        part.append(entry)
    yield part
