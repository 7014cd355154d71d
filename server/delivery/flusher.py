"""Joins the entries of one turn of the event loop into one write per client."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice

from server.core.log.backlog import Lag
from server.core.wire.frames import deflate_text_frames
from server.delivery.channel import Batch, Channel
from server.delivery.context import DeliveryContext
from server.delivery.join_window import JoinWindow
from server.delivery.sliced_writes import WRITE_ERRORS
from server.delivery.slow_consumers import SlowConsumers
from server.delivery.tiers import Group
from server.ports import Link

# Timers are no finer than this.
_MIN_PAUSE_SECONDS = 0.001
# After so long a flush leaves the other channels to the next one.
_MAX_FLUSH_SECONDS = 0.004


class Flusher:
    """Writes the immediate tiers at the end of each turn.

    A busy server makes one system call for many entries, of one channel or of several.
    """

    def __init__(self, context: DeliveryContext, slow_consumers: SlowConsumers) -> None:
        self._clock = context.clock
        self._schedule = context.schedule
        self._deferred_close = context.deferred_close
        self._writes = context.writes
        self._max_batch_bytes = context.config.max_batch_bytes
        self._slow_consumers = slow_consumers
        # Channels with pending entries.
        self.dirty: dict[Channel, None] = {}
        self._is_scheduled = False
        # Whether writes of the last flush are still to be made.
        self._is_flushing = False
        self._turn_began = self._flush_began = self._not_before = self._clock.monotonic()
        self._window = JoinWindow(context.config.join_seconds, self._turn_began)
        self._entries = 0
        self._traffic = context.traffic

    def begin_turn(self) -> float:
        """Schedule a flush if none is; returns when this turn began."""
        if not self._is_scheduled and not self._is_flushing:
            # The clock is read once per turn.
            self._turn_began = self._clock.monotonic()
            self._schedule_flush(self._turn_began)
        return self._turn_began

    def _schedule_flush(self, now: float) -> None:
        self._is_scheduled = True
        pause = self._not_before - now
        self._schedule(self._flush_turn, pause if pause >= _MIN_PAUSE_SECONDS else 0.0)

    @property
    def has_pending(self) -> bool:
        """Whether entries are yet to be written, or writes are held for the next turns."""
        return bool(self.dirty) or self._is_flushing

    def add(self, channel: Channel) -> None:
        """Flush a channel at the end of this turn."""
        self.dirty[channel] = None

    def forget(self, channel: Channel) -> None:
        """Drop a closed channel."""
        self.dirty.pop(channel, None)

    def _flush_turn(self) -> None:
        self._is_scheduled = False
        if self.dirty:
            self._flush(complete=False)

    def flush(self) -> None:
        """Write all pending entries; those for many links may be held for the next turns."""
        self._flush(complete=True)

    def _flush(self, *, complete: bool) -> None:
        dirty, self.dirty = self.dirty, {}
        if not dirty:
            return
        self._flush_began = began = self._clock.monotonic()
        waiting, flushed_count = list(dirty), 0
        with self._deferred_close:
            for channels in self._joinable(waiting):
                flushed_count += len(channels)
                if len(channels) == 1:
                    self._flush_immediate(channels[0])
                else:
                    self._flush_together(channels)
                if not complete and self._is_full(began):
                    break
            if flushed_count < len(waiting):
                # Before connections close, which may close some of these channels.
                self.dirty = {**dict.fromkeys(waiting[flushed_count:]), **self.dirty}
        self._is_flushing = True
        self._writes.when_done(self._flushed)

    def _is_full(self, began: float) -> bool:
        """Whether this turn should write no more."""
        return bool(self._writes.held_count) or (
            self._clock.monotonic() - began >= _MAX_FLUSH_SECONDS
        )

    def _flushed(self, now: float) -> None:
        self._is_flushing = False
        seconds = now - self._flush_began
        self._traffic.flush_seconds.observe(seconds)
        self._window.record(now, seconds, self._entries)
        self._entries = 0
        self._not_before = now + self._window.seconds
        if self.dirty and not self._is_scheduled:
            self._turn_began = now
            self._schedule_flush(now)

    def _joinable(self, channels: Iterable[Channel]) -> Iterator[list[Channel]]:
        """Runs of channels whose entries fit into one write; a larger channel is alone."""
        run: list[Channel] = []
        run_bytes = 0
        for channel in channels:
            pending_bytes = channel.pending_bytes()
            if run and run_bytes + pending_bytes > self._max_batch_bytes:
                yield run
                run, run_bytes = [], 0
            run.append(channel)
            run_bytes += pending_bytes
        if run:
            yield run

    def _flush_together(self, channels: Iterable[Channel]) -> None:
        """Write the pending entries of several channels with one write per client."""
        frames_by_link: defaultdict[Link, list[bytes]] = defaultdict(list)
        for channel in channels:
            for batch in channel.take_batches(self._max_batch_bytes):
                self._entries += batch.message_count
                self._count(channel, batch, writes=0)
                for group, frames in zip(channel.immediate.groups, batch.frames, strict=True):
                    slow_links: list[Link] = []
                    for link in group:
                        if link.accepts_plain:
                            frames_by_link[link].append(frames)
                        else:
                            slow_links.append(link)
                    if slow_links:
                        self._write_slow_path(channel, batch, group, frames, slow_links)
        self._traffic.count(0, len(frames_by_link), 0)
        links = iter(frames_by_link.items())
        for link, parts in islice(links, self._writes.take(len(frames_by_link))):
            try:
                link.write(parts[0] if len(parts) == 1 else b"".join(parts))
            except WRITE_ERRORS:
                self._deferred_close.abort(link)
        for link, parts in links:
            self._writes.hold(link, b"".join(parts))

    def flush_channel(self, channel: Channel) -> None:
        """Write the pending entries of one channel; call this before its subscribers change."""
        if channel in self.dirty:
            del self.dirty[channel]
            with self._deferred_close:
                self._flush_immediate(channel)

    def _flush_immediate(self, channel: Channel) -> None:
        for batch in channel.take_batches(self._max_batch_bytes):
            self._entries += batch.message_count
            self._count(channel, batch, writes=1)
            for group, frames in zip(channel.immediate.groups, batch.frames, strict=True):
                if not group:
                    continue
                slow_links: list[Link] = []
                links = iter(group)
                for link in islice(links, self._writes.take(len(group))):
                    if link.accepts_plain:
                        try:
                            link.write(frames)
                        except WRITE_ERRORS:
                            slow_links.append(link)
                    else:
                        slow_links.append(link)
                slow_links += self._writes.hold_all(links, frames)
                if slow_links:
                    self._write_slow_path(channel, batch, group, frames, slow_links)

    def _count(self, channel: Channel, batch: Batch, *, writes: int) -> None:
        """Count a batch, and so many writes to each client, for all clients at once."""
        groups, frames = channel.immediate.groups, batch.frames
        plain, numbered = len(groups[0]), len(groups[1])
        clients = plain + numbered
        size_bytes = plain * len(frames[0]) + numbered * len(frames[1])
        self._traffic.count(batch.message_count * clients, writes * clients, size_bytes)
        channel.ages.observe(self._clock.time() - batch.oldest_ms / 1000, clients)

    def _write_slow_path(
        self, channel: Channel, batch: Batch, group: Group, frames: bytes, links: list[Link]
    ) -> None:
        deflated: bytes | None = None
        for link in links:
            if link.clogged:
                subscription = group[link]
                channel.fall_behind(subscription, batch.serial, Lag(batch.prev, batch.oldest_ms))
                self._slow_consumers.add(subscription.client, channel)
                continue
            deflated = deflated or deflate_text_frames(frames)
            try:
                link.write(deflated if link.deflates else frames)
            except WRITE_ERRORS:
                self._deferred_close.abort(link)
