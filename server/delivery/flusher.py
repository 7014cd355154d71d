"""Joins what is published within one turn of the loop into one write a client."""

from collections import defaultdict
from collections.abc import Callable, Collection

from server.core.log.backlog import Lag
from server.core.wire.frames import deflate_text_frames
from server.delivery.channel import Batch, Channel, Group
from server.delivery.clients import WRITE_ERRORS, Client
from server.delivery.deferred_close import DeferredClose
from server.delivery.slow_consumers import Schedule
from server.ports import Clock, Link

# A flush that took long is followed by a pause as long, up to this: what comes meanwhile is joined,
# and half of the time is left for everything else. An idle server never waits.
_MAX_PAUSE_SECONDS = 0.005
# No timer is finer.
_MIN_PAUSE_SECONDS = 0.001


class Flusher:
    """The immediate tiers: an idle server writes at once at the end of the turn.

    A busy one makes one system call for many messages, of one topic or of several.
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
        # In which topics something waits for the end of the turn.
        self.dirty: dict[Channel, None] = {}
        # Whether the end of the turn is awaited, and when the turn began.
        self.is_scheduled = False
        self.turn_began = clock.monotonic()
        self._not_before = self.turn_began
        # How many messages were written, each as often as it had readers.
        self.delivered = 0

    def begin_turn(self) -> None:
        """The first message of a turn has come."""
        self.is_scheduled = True
        # One look at the clock serves the whole turn.
        now = self.turn_began = self._clock.monotonic()
        pause = self._not_before - now
        self._schedule(self.flush, pause if pause >= _MIN_PAUSE_SECONDS else 0.0)

    def flush(self) -> None:
        """Write what waits for the end of this turn."""
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
        """Write what waits in several topics: one write a client, for all that it gets of it."""
        batches: defaultdict[Link, list[bytes]] = defaultdict(list)
        for channel in channels:
            for piece in channel.take_batches(self._max_batch_bytes):
                for group, frames in zip(channel.immediate.groups, piece.frames, strict=True):
                    self.delivered += piece.message_count * len(group)
                    others: list[Link] = []
                    for link in group:
                        if link.accepts_plain:
                            batches[link].append(frames)
                        else:
                            others.append(link)
                    if others:
                        self._write_slow_path(channel, piece, group, frames, others)
        for link, batch in batches.items():
            try:
                link.write(batch[0] if len(batch) == 1 else b"".join(batch))
            except WRITE_ERRORS:
                self._deferred_close.abort(link)

    def flush_channel(self, channel: Channel) -> None:
        """Write what waits in one topic, before somebody joins or leaves its immediate tier."""
        if channel in self.dirty:
            del self.dirty[channel]
            with self._deferred_close:
                self._flush_immediate(channel)

    def _flush_immediate(self, channel: Channel) -> None:
        for piece in channel.take_batches(self._max_batch_bytes):
            for group, frames in zip(channel.immediate.groups, piece.frames, strict=True):
                self.delivered += piece.message_count * len(group)
                others: list[Link] = []
                for link in group:
                    if link.accepts_plain:
                        try:
                            link.write(frames)
                        except WRITE_ERRORS:
                            others.append(link)
                    else:
                        others.append(link)
                if others:
                    self._write_slow_path(channel, piece, group, frames, others)

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
