"""Holds the subscriptions of one channel on this node, in tiers by interval."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from server.core.log.backlog import Lag
from server.core.log.channel_state import ChannelState
from server.core.log.entries import Entry, Reset
from server.core.recovery.offsets import plain_frame
from server.core.recovery.push_log import LoggedPush, PushLog
from server.core.recovery.write_index import DerivedWriteIndex, WriteIndex
from server.delivery.clients import Client, Subscription
from server.delivery.context import DeliveryContext
from server.delivery.tiers import Tier

# About the size of an event's name, fields and offset.
_EVENT_OVERHEAD_BYTES = 160
# Merged topics need no older writes: a snapshot does as well.
_MAX_MERGED_WRITES = 128
_MAX_PUSHES = 1000
_MAX_PUSH_BYTES = 256 * 1024


class Batch(NamedTuple):
    """Entries of one turn as one write for the immediate tier: without offsets, and with."""

    frames: tuple[bytes, bytes]
    serial: int
    prev: int
    oldest_ms: int
    message_count: int


class Derivation(Protocol):
    """Derives the entries of one channel from those of another, its source."""

    def derive(self, entry: Entry) -> Entry | None:
        """The entry that a new entry of the source causes; None if none."""

    def advance(self) -> Entry | None:
        """An entry up to the source's position that changes nothing; None if it is there."""

    def restart(self, reset: Reset) -> Reset:
        """The reset that a reset of the source causes."""


class Channel:
    """One topic or session: its state, its tiers, and the entries pending in this turn."""

    __slots__ = (
        "_offsets",
        "_pending",
        "_pending_bytes",
        "_push_log",
        "_reset_at",
        "_up_to_date",
        "active_at",
        "ages",
        "conflated",
        "derived",
        "immediate",
        "name",
        "parked",
        "reset_serial",
        "stale_since_ms",
        "state",
        "status_serial",
        "write_index",
    )

    def __init__(self, name: str, state: ChannelState, context: DeliveryContext) -> None:
        self.name = name
        self.state = state
        self._offsets = context.offsets
        self.immediate = Tier(0, state.position.seq)
        # The ages of what the immediate tier is sent.
        self.ages = context.traffic.ages(state.label, 0)
        self.conflated: dict[int, Tier] = {}
        # The channels whose entries are derived from this one's.
        self.derived: dict[Channel, Derivation] = {}
        # The subscriptions of disconnected clients that may resume.
        self.parked: dict[Subscription, None] = {}
        # The monotonic time of the last message; its wall clock time while the feed is stale.
        self.active_at = context.clock.monotonic()
        self.stale_since_ms: int | None = None
        # The serials of the last status event and of the last reset.
        self.status_serial = self.reset_serial = 0
        self.write_index: WriteIndex | None = None
        self._push_log: PushLog | None = None
        if context.config.recoverable:
            limit = context.config.backlog_messages
            if state.merges:
                limit = min(limit, _MAX_MERGED_WRITES)
            index = DerivedWriteIndex if state.is_derived else WriteIndex
            self.write_index = index(state.position.seq, max_messages=limit)
            self._push_log = PushLog(max_count=_MAX_PUSHES, max_bytes=_MAX_PUSH_BYTES)
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        # The index of the pending entry that does not follow the one before it.
        self._reset_at: int | None = None
        # Those with a lag that have the newest entry.
        self._up_to_date: dict[Subscription, None] = {}

    def __repr__(self) -> str:
        return f"<Channel {self.name} {len(self)}>"

    def __len__(self) -> int:
        return len(self.immediate) + sum(map(len, self.conflated.values()))

    @property
    def is_needed(self) -> bool:
        """Whether the channel has subscribers, parked clients, or channels derived from it."""
        return bool(len(self) or self.parked or self.derived)

    def parked_ids(self) -> tuple[str, ...]:
        """The connection ids of disconnected clients that may resume."""
        return tuple(each.client.id for each in self.parked)

    def clients(self) -> list[Client]:
        """All subscribers, as a copy."""
        return [each.client for each in self.subscriptions()]

    def subscriptions(self) -> list[Subscription]:
        """The subscriptions of all connected clients, as a copy."""
        return [each for tier in self.tiers() for each in tier.all()]

    def tiers(self) -> Iterator[Tier]:
        """All tiers, the immediate one first."""
        yield self.immediate
        yield from self.conflated.values()

    # --- the feed

    def status(self) -> bytes | None:
        """The feed's state as an event; None if the channel has no feed."""
        return self.state.status(self.stale_since_ms)

    def set_stale(self, since_ms: int | None) -> None:
        """Mark the feed stale since then, or live if None."""
        self.stale_since_ms = since_ms

    def set_active_at(self, now: float) -> None:
        """Set the monotonic time of the last message."""
        self.active_at = now

    def status_sent(self, serial: int) -> None:
        """Record the write of the feed's state to all that were not clogged."""
        self.status_serial = serial

    def pushes_after(self, serial: int, client_id: str) -> list[LoggedPush] | None:
        """The pushes to a client after a write; None if some are gone, [] if none is logged."""
        return [] if self._push_log is None else self._push_log.after(serial, client_id)

    def log_push(self, event: bytes, excluded: frozenset[str]) -> int:
        """Number a push, and keep it for parked clients; returns its serial."""
        serial = self._offsets.allocate()
        if self._push_log is not None:
            self._push_log.append(LoggedPush(serial, self.state.position.seq, event, excluded))
        return serial

    # --- derived channels

    def add_derived(self, channel: "Channel", derivation: Derivation) -> None:
        """Derive another channel's entries from those of this one."""
        self.derived[channel] = derivation

    def remove_derived(self, channel: "Channel") -> None:
        """Stop deriving another channel's entries."""
        del self.derived[channel]

    # --- entries

    def accept(self, entry: Entry, now: float) -> bool:
        """Accept the next entry; True if the flusher has to write it in this turn."""
        self.active_at = now
        before = self.state.position
        if not self.state.accept(entry):
            return False
        ts_ms = entry.ts_ms
        position = entry.position
        if position.epoch != before.epoch or entry.prev != before.seq:
            self._reset_at = len(self._pending)
        if self._up_to_date:
            for subscription in self._up_to_date:
                if subscription.lag is not None:
                    subscription.lag.miss(ts_ms)
            self._up_to_date.clear()
        for tier in self.conflated.values():
            tier.miss(ts_ms)
        plain, numbered = self.immediate.groups
        if not plain and not numbered and self.write_index is None:
            self.immediate.advance(position.seq)
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
            tier.advance(reset.head.seq)

    def restarted(self) -> None:
        """Record the write after which a reset is known: a client must have seen it to resume."""
        self.reset_serial = self._offsets.allocate()

    def pending_bytes(self) -> int:
        """The approximate size of the pending entries for one client."""
        return self._pending_bytes

    def take_batches(self, max_batch_bytes: int) -> list[Batch]:
        """Number and encode the pending entries; the immediate tier counts as having them."""
        entries, self._pending = self._pending, []
        self._pending_bytes = 0
        self.immediate.advance(self.state.position.seq)
        if not entries:
            return []
        serial = self._offsets.allocate(len(entries))
        if self.write_index is not None:
            self._index_writes(self.write_index, serial, entries)
        plain, numbered = self.immediate.groups
        if not plain and not numbered:
            return []
        if len(entries) == 1:
            return [self._single_batch(entries[0], serial)]
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
            batches.append(Batch(frames, serial, first.prev, first.ts_ms, len(run)))
            serial += len(run)
        return batches

    def _single_batch(self, entry: Entry, serial: int) -> Batch:
        """A batch of one entry: as of many, and cheaper."""
        plain, numbered = self.immediate.groups
        event = self.state.event(entry)
        frames = (
            plain_frame(event) if plain else b"",
            self._offsets.frame(event, serial) if numbered else b"",
        )
        return Batch(frames, serial, entry.prev, entry.ts_ms, 1)

    def _index_writes(self, write_index: WriteIndex, serial: int, entries: list[Entry]) -> None:
        for index, entry in enumerate(entries):
            if index == self._reset_at:
                write_index.restart(entry.prev)
                self.reset_serial = serial + index
            write_index.append(serial + index, entry.ts_ms, entry.position.seq)
        self._reset_at = None

    # --- subscriptions

    def tier(self, interval_ms: int) -> Tier:
        """The tier of this interval, created if needed."""
        if interval_ms == 0:
            return self.immediate
        tier = self.conflated.get(interval_ms)
        if tier is None:
            tier = self.conflated[interval_ms] = Tier(interval_ms, self.state.position.seq)
        return tier

    def drop_tier(self, interval_ms: int) -> None:
        """Drop an empty conflated tier."""
        del self.conflated[interval_ms]

    def seq_of(self, subscription: Subscription) -> int:
        """The newest entry sent to a connected client."""
        lag = subscription.lag
        return self.tier(subscription.interval_ms).last_seq if lag is None else lag.last_seq

    def join(self, subscription: Subscription, interval_ms: int, lag: Lag) -> bool:
        """Add a subscription to a tier; False if it is not at the tier's position."""
        tier = self.tier(interval_ms)
        subscription.grant(interval_ms)
        is_synced = lag.last_seq == tier.last_seq and not lag.has_pending
        if is_synced:
            index = tier.batches if interval_ms else self.write_index
            subscription.sync(self._offsets.last_serial, tier.last_seq, index)
        else:
            subscription.fall_behind(self._offsets.last_serial, lag)
            if lag.last_seq == self.state.position.seq:
                # The next entry will be the first it lacks.
                lag.miss(None)
                self._up_to_date[subscription] = None
        tier.add(subscription)
        return is_synced

    def fall_behind(self, subscription: Subscription, serial: int, lag: Lag) -> None:
        """Keep a synced subscription at its position: its client was not sent this write."""
        tier = self.tier(subscription.interval_ms)
        tier.remove(subscription)
        subscription.fall_behind(serial, lag)
        tier.add(subscription)

    def leave(self, subscription: Subscription) -> Lag:
        """Remove a subscription from its tier and return its lag."""
        self._up_to_date.pop(subscription, None)
        return self.tier(subscription.interval_ms).remove(subscription)

    def park(self, subscription: Subscription) -> None:
        """Move a subscription out of its tier, until its client resumes."""
        self.leave(subscription)
        self.parked[subscription] = None

    def unpark(self, subscription: Subscription) -> None:
        """Forget that a client was parked, because it resumes."""
        del self.parked[subscription]

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription, parked or not."""
        if subscription in self.parked:
            del self.parked[subscription]
        else:
            self.leave(subscription)


def _split(entries: list[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    """Split entries into runs of at most `max_bytes`, at least one entry each."""
    run: list[Entry] = []
    remaining_bytes = max_bytes
    for entry in entries:
        remaining_bytes -= len(entry.data) + _EVENT_OVERHEAD_BYTES
        if run and remaining_bytes < 0:
            yield run
            run, remaining_bytes = [], max_bytes - len(entry.data) - _EVENT_OVERHEAD_BYTES
        run.append(entry)
    yield run
