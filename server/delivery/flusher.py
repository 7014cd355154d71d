"""Joins the entries of one turn of the event loop into one write per client."""

from collections import defaultdict
from collections.abc import Collection

from server.core.log.backlog import Lag
from server.core.wire.frames import deflate_text_frames
from server.delivery.channel import Batch, Channel
from server.delivery.clients import WRITE_ERRORS
from server.delivery.context import DeliveryContext
from server.delivery.slow_consumers import SlowConsumers
from server.delivery.tiers import Group
from server.ports import Link

# After a flush comes a pause of the same length, up to this: entries join meanwhile, and half of
# the time is left for other work. An idle server never waits.
_MAX_PAUSE_SECONDS = 0.005
# Timers are no finer than this.
_MIN_PAUSE_SECONDS = 0.001


class Flusher:
    """Writes the immediate tiers at the end of each turn.

    A busy server makes one system call for many entries, of one channel or of several.
    """

    def __init__(self, context: DeliveryContext, slow_consumers: SlowConsumers) -> None:
        self._clock = context.clock
        self._schedule = context.schedule
        self._deferred_close = context.deferred_close
        self._max_batch_bytes = context.config.max_batch_bytes
        self._slow_consumers = slow_consumers
        # Channels with pending entries.
        self.dirty: dict[Channel, None] = {}
        self._is_scheduled = False
        self._turn_began = self._not_before = self._clock.monotonic()
        self._traffic = context.traffic

    def begin_turn(self) -> float:
        """Schedule a flush if none is; returns when this turn began."""
        if not self._is_scheduled:
            self._is_scheduled = True
            # The clock is read once per turn.
            now = self._turn_began = self._clock.monotonic()
            pause = self._not_before - now
            self._schedule(self.flush, pause if pause >= _MIN_PAUSE_SECONDS else 0.0)
        return self._turn_began

    def add(self, channel: Channel) -> None:
        """Flush a channel at the end of this turn."""
        self.dirty[channel] = None

    def forget(self, channel: Channel) -> None:
        """Drop a closed channel."""
        self.dirty.pop(channel, None)

    def flush(self) -> None:
        """Write all pending entries."""
        self._is_scheduled = False
        dirty, self.dirty = self.dirty, {}
        if not dirty:
            return
        began = self._clock.monotonic()
        with self._deferred_close:
            if len(dirty) == 1 or sum(map(Channel.pending_bytes, dirty)) > self._max_batch_bytes:
                for channel in dirty:
                    self._flush_immediate(channel)
            else:
                self._flush_together(dirty)
        ended = self._clock.monotonic()
        self._traffic.flush_seconds.observe(ended - began)
        self._not_before = ended + min(ended - began, _MAX_PAUSE_SECONDS)

    def _flush_together(self, channels: Collection[Channel]) -> None:
        """Write the pending entries of several channels with one write per client."""
        frames_by_link: defaultdict[Link, list[bytes]] = defaultdict(list)
        for channel in channels:
            for batch in channel.take_batches(self._max_batch_bytes):
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
        for link, parts in frames_by_link.items():
            try:
                link.write(parts[0] if len(parts) == 1 else b"".join(parts))
            except WRITE_ERRORS:
                self._deferred_close.abort(link)

    def flush_channel(self, channel: Channel) -> None:
        """Write the pending entries of one channel; call this before its subscribers change."""
        if channel in self.dirty:
            del self.dirty[channel]
            with self._deferred_close:
                self._flush_immediate(channel)

    def _flush_immediate(self, channel: Channel) -> None:
        for batch in channel.take_batches(self._max_batch_bytes):
            self._count(channel, batch, writes=1)
            for group, frames in zip(channel.immediate.groups, batch.frames, strict=True):
                slow_links: list[Link] = []
                for link in group:
                    if link.accepts_plain:
                        try:
                            link.write(frames)
                        except WRITE_ERRORS:
                            slow_links.append(link)
                    else:
                        slow_links.append(link)
                if slow_links:
                    self._write_slow_path(channel, batch, group, frames, slow_links)

    def _count(self, channel: Channel, batch: Batch, *, writes: int) -> None:
        """Count a batch, and so many writes to each client, for all clients at once."""
        plain, numbered = map(len, channel.immediate.groups)
        clients = plain + numbered
        size_bytes = plain * len(batch.frames[0]) + numbered * len(batch.frames[1])
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
