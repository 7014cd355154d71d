"""Joins the entries of one turn of the event loop into one write per client."""

from collections import defaultdict
from collections.abc import Callable, Collection

from server.core.log.backlog import Lag
from server.core.wire.frames import deflate_text_frames
from server.delivery.channel import Batch, Channel, Group
from server.delivery.clients import WRITE_ERRORS, Client
from server.delivery.deferred_close import DeferredClose
from server.delivery.slow_consumers import Schedule
from server.ports import Clock, Link

# After a flush comes a pause of the same length, up to this: entries join meanwhile, and half of
# the time is left for other work. An idle server never waits.
_MAX_PAUSE_SECONDS = 0.005
# Timers are no finer than this.
_MIN_PAUSE_SECONDS = 0.001


class Flusher:
    """Writes the immediate tiers at the end of each turn.

    A busy server makes one system call for many entries, of one channel or of several.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        schedule: Schedule,
        deferred_close: DeferredClose,
        on_clogged: Callable[[Client, Channel, Lag], None],
        max_batch_bytes: int,
    ) -> None:
        self._clock = clock
        self._schedule = schedule
        self._deferred_close = deferred_close
        self._on_clogged = on_clogged
        self._max_batch_bytes = max_batch_bytes
        # Channels with pending entries.
        self.dirty: dict[Channel, None] = {}
        # Whether a flush is scheduled, and when the turn began.
        self.is_scheduled = False
        self.turn_began = clock.monotonic()
        self._not_before = self.turn_began
        # Messages written, counted once per recipient.
        self.delivered = 0

    def begin_turn(self) -> None:
        """Schedule the flush; call this for the first entry of a turn."""
        self.is_scheduled = True
        # The clock is read once per turn.
        now = self.turn_began = self._clock.monotonic()
        pause = self._not_before - now
        self._schedule(self.flush, pause if pause >= _MIN_PAUSE_SECONDS else 0.0)

    def flush(self) -> None:
        """Write all pending entries."""
        self.is_scheduled = False
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
        self._not_before = ended + min(ended - began, _MAX_PAUSE_SECONDS)

    def _flush_together(self, channels: Collection[Channel]) -> None:
        """Write the pending entries of several channels with one write per client."""
        frames_by_link: defaultdict[Link, list[bytes]] = defaultdict(list)
        for channel in channels:
            for batch in channel.take_batches(self._max_batch_bytes):
                for group, frames in zip(channel.immediate.groups, batch.frames, strict=True):
                    self.delivered += batch.message_count * len(group)
                    slow_links: list[Link] = []
                    for link in group:
                        if link.accepts_plain:
                            frames_by_link[link].append(frames)
                        else:
                            slow_links.append(link)
                    if slow_links:
                        self._write_slow_path(channel, batch, group, frames, slow_links)
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
            for group, frames in zip(channel.immediate.groups, batch.frames, strict=True):
                self.delivered += batch.message_count * len(group)
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

    def _write_slow_path(
        self, channel: Channel, batch: Batch, group: Group, frames: bytes, links: list[Link]
    ) -> None:
        deflated: bytes | None = None
        for link in links:
            client = group[link]
            if link.clogged:
                del group[link]
                lag = Lag(batch.prev, batch.oldest_ms)
                channel.immediate.unsynced[client] = lag
                client.add_checkpoint(channel, batch.serial, batch.prev)
                self._on_clogged(client, channel, lag)
                continue
            deflated = deflated or deflate_text_frames(frames)
            try:
                link.write(deflated if link.deflates else frames)
            except WRITE_ERRORS:
                self._deferred_close.abort(link)
