"""Joins what is published within one turn of the loop into one write a client."""

from collections import defaultdict
from collections.abc import Callable, Collection

from server.core.log.backlog import Lag
from server.core.wire.frames import deflate_text_frames
from server.delivery.channel import Channel, Group, Piece
from server.delivery.clients import BROKEN, Client
from server.delivery.deferred_close import Endings
from server.delivery.slow_consumers import Schedule
from server.ports import Clock, Link

# A flush that took long is followed by a pause as long, up to this: what comes meanwhile is joined,
# and half of the time is left for everything else. An idle server never waits.
_MAX_PAUSE_SECONDS = 0.005
# No timer is finer.
_LEAST_PAUSE_SECONDS = 0.001


class Turn:
    """The immediate tiers: an idle server writes at once at the end of the turn.

    A busy one makes one system call for many messages, of one topic or of several.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        schedule: Schedule,
        endings: Endings,
        fall: Callable[[Client, Channel, Lag], None],
        piece_bytes: int,
    ) -> None:
        self._clock = clock
        self._schedule = schedule
        self._endings = endings
        self._fall = fall
        self._piece_bytes = piece_bytes
        # In which topics something waits for the end of the turn.
        self.dirty: dict[Channel, None] = {}
        # Whether the end of the turn is awaited, and when the turn began.
        self.scheduled = False
        self.now = clock.monotonic()
        self._not_before = self.now
        # How many messages were written, each as often as it had readers.
        self.delivered = 0

    def begin(self) -> None:
        """The first message of a turn has come."""
        self.scheduled = True
        # One look at the clock serves the whole turn.
        now = self.now = self._clock.monotonic()
        pause = self._not_before - now
        self._schedule(self.flush, pause if pause >= _LEAST_PAUSE_SECONDS else 0.0)

    def flush(self) -> None:
        """Write what waits for the end of this turn."""
        self.scheduled = False
        dirty, self.dirty = self.dirty, {}
        if not dirty:
            return
        began = self._clock.monotonic()
        with self._endings:
            if len(dirty) == 1 or sum(map(Channel.waiting_bytes, dirty)) > self._piece_bytes:
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
            for piece in channel.take(self._piece_bytes):
                for group, frames in zip(channel.immediate.groups, piece.frames, strict=True):
                    self.delivered += piece.messages * len(group)
                    others: list[Link] = []
                    for link in group:
                        if link.swift:
                            batches[link].append(frames)
                        else:
                            others.append(link)
                    if others:
                        self._write_to_others(channel, piece, group, frames, others)
        for link, batch in batches.items():
            try:
                link.write(batch[0] if len(batch) == 1 else b"".join(batch))
            except BROKEN:
                self._endings.break_off(link)

    def flush_channel(self, channel: Channel) -> None:
        """Write what waits in one topic, before somebody joins or leaves its immediate tier."""
        if channel in self.dirty:
            del self.dirty[channel]
            with self._endings:
                self._flush_immediate(channel)

    def _flush_immediate(self, channel: Channel) -> None:
        for piece in channel.take(self._piece_bytes):
            for group, frames in zip(channel.immediate.groups, piece.frames, strict=True):
                self.delivered += piece.messages * len(group)
                others: list[Link] = []
                for link in group:
                    if link.swift:
                        try:
                            link.write(frames)
                        except BROKEN:
                            others.append(link)
                    else:
                        others.append(link)
                if others:
                    self._write_to_others(channel, piece, group, frames, others)

    def _write_to_others(
        self, channel: Channel, piece: Piece, group: Group, frames: bytes, links: list[Link]
    ) -> None:
        deflated: bytes | None = None
        for link in links:
            client = group[link]
            if link.clogged:
                del group[link]
                lag = Lag(piece.before, piece.oldest_ms)
                channel.immediate.odd[client] = lag
                client.note(channel, piece.serial, piece.before)
                self._fall(client, channel, lag)
                continue
            deflated = deflated or deflate_text_frames(frames)
            try:
                link.write(deflated if link.deflates else frames)
            except BROKEN:
                self._endings.break_off(link)
