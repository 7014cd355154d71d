"""Brings each published entry to every subscriber of this node: one encoding, one write each."""

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from client_sdk.contract import INTERVALS_MS
from server.core.counters import Counters
from server.core.entries import Entry, Reset
from server.core.frames import deflate_text_frames
from server.core.offsets import Offsets, plain_frame
from server.core.outbox import Lag
from server.core.told import Saying, Told
from server.core.trail import Answer, Trail
from server.delivery.channel import Channel, Group, Piece, Tier
from server.delivery.clients import BROKEN, Client
from server.delivery.endings import Endings
from server.delivery.laggards import Laggards, Schedule
from server.delivery.returning import lacking
from server.delivery.view import View
from server.ports import Clock, Link

# A flush that took long is followed by a pause as long, up to this: what comes meanwhile is joined,
# and half of the time is left for everything else. An idle server never waits.
_MAX_PAUSE_SECONDS = 0.005
# No timer is finer.
_LEAST_PAUSE_SECONDS = 0.001
# What is said to one client alone, and may have to be said again.
_MAX_TOLD = 100
_MAX_TOLD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """How much waits for one client, and for how long."""

    buffer_bytes: int = 256 * 1024
    stalled_seconds: float = 30.0
    # Whether clients that were cut off may be back, and how many messages of a topic are numbered.
    recoverable: bool = False
    backlog_messages: int = 1000

    @property
    def piece_bytes(self) -> int:
        """One write: a quarter, so that one more still fits where the client just takes none."""
        return self.buffer_bytes // 4


class Fanout:
    """Joins what is published within one turn of the loop into one write a client.

    An idle server sends at once at the end of the turn; a busy one makes one system call for
    many messages, of one topic or of several. Clients of one pace that stand at the same message
    share the bytes. Who does not take its bytes is left alone until it does: nothing is queued
    for it, only its place in each topic is kept, and it is brought up to date from there.
    """

    def __init__(
        self,
        config: DeliveryConfig,
        *,
        clock: Clock,
        counters: Counters,
        schedule: Schedule,
        offsets: Offsets | None = None,
    ) -> None:
        self._config = config
        self._offsets = offsets or Offsets("0000")
        self._piece_bytes = config.piece_bytes
        self._clock = clock
        self._schedule = schedule
        self._endings = Endings()
        self._clients: dict[str, Client] = {}
        self._parked: dict[str, Client] = {}
        self._channels: dict[str, Channel] = {}
        # Entries that come while the state before them is still being fetched.
        self._opening: dict[str, list[Entry | Reset]] = {}
        self._dirty: dict[Channel, None] = {}
        self._due: dict[int, dict[Channel, None]] = {each: {} for each in INTERVALS_MS if each}
        self._boundaries: dict[int, int] = {}
        self._scheduled = False
        self._now = clock.monotonic()
        self._not_before = self._now
        # Told when a topic speaks again that had gone silent.
        self.on_revival: Callable[[Channel], None] = lambda channel: None
        # How many messages were written, each as often as it had readers.
        self.delivered = 0
        self.laggards = Laggards(
            clock=clock,
            counters=counters,
            schedule=schedule,
            flush=self.flush_channel,
            place=self.place,
            offsets=self._offsets,
            endings=self._endings,
            piece_bytes=config.piece_bytes,
            stalled_seconds=config.stalled_seconds,
        )

    # --- clients

    def attach(self, connection_id: str, link: Link, *, numbered: bool = False) -> None:
        """From now on this connection can be written to; `numbered`, with offsets."""
        trail: Trail[Channel] | None = Trail(self._offsets.last) if numbered else None
        self._clients[connection_id] = Client(connection_id, link, trail, self._endings)

    def detach(self, connection_id: str) -> tuple[str, ...]:
        """The connection has ended; the channels that nobody listens to any more."""
        client = self._parked.pop(connection_id, None)
        if client is None:
            client = self._clients.pop(connection_id, None)
            if client is None:
                return ()
            self._silence(client)
        emptied = []
        for channel in client.channels:
            channel.held.pop(client, None)
            if not channel.needed:
                emptied.append(channel.name)
        client.channels.clear()
        return tuple(emptied)

    def park(self, connection_id: str) -> None:
        """The connection was cut off and may be back: nothing is sent, and nothing is let go."""
        client = self._clients.pop(connection_id)
        self._silence(client)
        client.last_serial = self._offsets.last
        for channel in client.channels:
            channel.held[client] = None
        self._parked[connection_id] = client

    def resume(
        self, connection_id: str, link: Link, offset: str | None, first: bytes = b""
    ) -> bool:
        """It is back, and says what it saw last: it is sent what it lacks, and goes on.

        The `first` frames come before that: they tell it that it is back.

        False, and nothing has changed, where that cannot be told exactly.
        """
        client = self._parked[connection_id]
        self.flush()
        lags = lacking(client, offset, self._offsets)
        if lags is None:
            return False
        del self._parked[connection_id]
        client.link = link
        self._clients[connection_id] = client
        with self._endings:
            client.send(first)
            self._repeat(client, lags.serial)
            for channel, lag in lags.lags.items():
                del channel.held[client]
                pace = client.pace(channel)
                client.channels[channel] = pace
                # Who stands where its pace stands goes on with it, though the head may be further.
                lacks = lag.owes or lag.last != channel.view.position.seq
                if not channel.join(client, pace, lag) and lacks:
                    self.laggards.owe(client, channel, lag)
            self.laggards.serve(client)
        return True

    def parked(self, connection_id: str) -> Client:
        """One that was cut off and may be back; nothing waits to be written."""
        self.flush()
        return self._parked[connection_id]

    def take_in(self, connection_id: str, link: Link, alias: str | None) -> Client:
        """One that was cut off on another node, and may be back here; it listens to nothing yet."""
        self.flush()
        born = self._offsets.last
        client = Client(connection_id, link, Trail(born, alias), self._endings)
        client.last_serial = born
        self._parked[connection_id] = client
        return client

    def _silence(self, client: Client) -> None:
        """Nothing more is written to it."""
        self.laggards.forget(client)
        client.outbox = None
        for channel, pace in client.channels.items():
            channel.part(client, pace)

    def __contains__(self, connection_id: object) -> bool:
        """Whether this connection can be written to."""
        return connection_id in self._clients

    @property
    def link_count(self) -> int:
        """How many connections can be written to."""
        return len(self._clients)

    # --- channels

    @property
    def topic_count(self) -> int:
        """How many topics and sessions are followed here."""
        return len(self._channels)

    def channel(self, name: str) -> Channel | None:
        """A topic that is followed here."""
        return self._channels.get(name)

    def channels(self) -> tuple[Channel, ...]:
        """Every topic that is followed here."""
        return tuple(self._channels.values())

    def prepare(self, name: str) -> None:
        """Entries of this topic may come before its state is known: hold them."""
        if name not in self._channels:
            self._opening.setdefault(name, [])

    def open(self, name: str, view: View) -> Channel:
        """Follow a topic from the state that the view has, and what was held since."""
        channel = self._channels[name] = Channel(
            name,
            view,
            self._clock.monotonic(),
            offsets=self._offsets,
            max_messages=self._config.backlog_messages,
            recoverable=self._config.recoverable,
        )
        for held in self._opening.pop(name, ()):
            if isinstance(held, Entry):
                channel.accept(held)
            elif held.head != view.position:
                channel.take(self._piece_bytes)
                channel.reset(held)
        channel.take(self._piece_bytes)
        return channel

    def close(self, name: str) -> bool:
        """Let go of a topic, unless somebody listens to it or may be back to do so."""
        channel = self._channels.get(name)
        if channel is not None:
            if channel.needed:
                return False
            del self._channels[name]
            self._dirty.pop(channel, None)
            for due in self._due.values():
                due.pop(channel, None)
        return True

    def abandon(self, name: str) -> None:
        """Nobody waits for the topic's state any more; what was held for it is let go."""
        self._opening.pop(name, None)

    # --- who hears what

    def standing(self, connection_id: str, channel: Channel) -> tuple[int, int]:
        """How often a client is served in a topic, in milliseconds, and what it was last sent."""
        client = self._clients[connection_id]
        pace = client.channels[channel]
        tier = channel.tier(pace)
        lag = tier.odd.get(client)
        return pace, tier.last if lag is None else lag.last

    def listens(self, connection_id: str, channel: Channel) -> bool:
        """Whether the client hears this topic."""
        return channel in self._clients[connection_id].channels

    def listen(self, connection_id: str, channel: Channel, interval_ms: int) -> int:
        """The client hears the topic from its head on; the pace that it is served at."""
        client = self._clients[connection_id]
        self.flush_channel(channel)
        head = channel.view.position.seq
        before = self._part(client, channel)
        if client.trail is not None and (before is None or before.owes or before.last != head):
            client.trail.begin(channel, Answer(self._offsets.last, moved=before is not None))
        if interval_ms:
            client.asked[channel] = interval_ms
        pace = client.pace(channel)
        self.place(client, channel, pace, Lag(head))
        owed = before is not None and before.needs_status
        if owed or channel.stale_since_ms is not None:
            self._owe(client, channel, Lag(head, needs_status=True))
        return pace

    def answered(self, connection_id: str) -> None:
        """The client is told now where it stands in what it was made to hear."""
        client = self._clients.get(connection_id)
        if client is not None and client.trail is not None:
            client.trail.answered(self._offsets.last)

    def owe_snapshot(self, connection_id: str, channel: Channel) -> None:
        """The client has the position but not the state: that comes as a message."""
        lag = Lag(channel.view.position.seq, needs_snapshot=True)
        lag.needs_status = channel.stale_since_ms is not None
        self._owe(self._clients[connection_id], channel, lag)

    def unlisten(self, connection_id: str, channel: Channel) -> None:
        """The client wants no more of it, or is to have no more of it when it is back.

        One that is gone by now is nothing.
        """
        parked = self._parked.get(connection_id)
        if parked is not None:
            del parked.channels[channel]
            parked.asked.pop(channel, None)
            channel.held.pop(parked, None)
            if parked.trail is not None:
                parked.trail.drop(channel)
            return
        client = self._clients.get(connection_id)
        if client is not None:
            self._part(client, channel)
            if client.trail is not None:
                client.trail.drop(channel)

    def _part(self, client: Client, channel: Channel) -> Lag | None:
        client.asked.pop(channel, None)
        pace = client.channels.pop(channel, None)
        if pace is None:
            return None
        if client.outbox is not None:
            client.outbox.drop(channel)
        return channel.part(client, pace)

    def _owe(self, client: Client, channel: Channel, lag: Lag) -> None:
        pace = client.channels[channel]
        channel.part(client, pace)
        channel.join(client, pace, lag)
        self.laggards.owe(client, channel, lag)

    def place(self, client: Client, channel: Channel, pace: int, lag: Lag) -> None:
        """Put a client where it belongs, and see to it that it gets what it lacks there."""
        client.channels[channel] = pace
        if channel.join(client, pace, lag):
            return
        if lag.last == channel.view.position.seq and not lag.owes:
            return
        if pace:
            self._due[pace][channel] = None
        else:
            self.laggards.owe(client, channel, lag)

    # --- what is published

    def deliver(self, entry: Entry) -> None:
        """Take one entry, in the order of its channel."""
        channel = self._channels.get(entry.channel)
        if channel is None:
            held = self._opening.get(entry.channel)
            if held is not None:
                held.append(entry)
            return
        if not self._scheduled:
            self._scheduled = True
            # One look at the clock serves the whole turn.
            now = self._now = self._clock.monotonic()
            pause = self._not_before - now
            self._schedule(self.flush, pause if pause >= _LEAST_PAUSE_SECONDS else 0.0)
        channel.active_at = self._now
        if channel.stale_since_ms is not None:
            self.set_stale(channel, None)
        if channel.accept(entry):
            self._dirty[channel] = None
        for interval_ms in channel.paced:
            self._due[interval_ms][channel] = None

    def reset(self, reset: Reset) -> None:
        """What came of a channel cannot be told: all who listen begin anew where it stands now."""
        channel = self._channels.get(reset.channel)
        if channel is None:
            held = self._opening.get(reset.channel)
            if held is not None:
                held.append(reset)
            return
        with self._endings:
            self._begin_anew(channel, reset)

    def _begin_anew(self, channel: Channel, reset: Reset) -> None:
        self.flush_channel(channel)
        view, before = channel.view, channel.view.position
        begun = reset.head.epoch != before.epoch
        parted = [
            (client, channel.part(client, client.channels[channel])) for client in channel.clients()
        ]
        channel.reset(reset)
        for client, lag in parted:
            lasts = lag.last == before.seq and lag.told is None and begun
            if view.resyncs:
                lag.needs_resync = lag.needs_status = True
                lag.needs_snapshot = reset.latest is not None
            elif not lasts:
                self.laggards.let_go(client, "messages were lost on their way here")
            if not lag.needs_snapshot:
                lag.last, lag.oldest_ms = reset.head.seq, None
            channel.join(client, client.channels[channel], lag)
            if view.resyncs:
                self.laggards.owe(client, channel, lag)
        # Whoever comes back and has seen no more than until here stands nowhere.
        channel.reset_serial = self._offsets.take()

    def flush(self) -> None:
        """Write what waits for the end of this turn."""
        self._scheduled = False
        dirty, self._dirty = self._dirty, {}
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
        if channel in self._dirty:
            del self._dirty[channel]
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
                self.laggards.fall(client, channel, lag)
                continue
            deflated = deflated or deflate_text_frames(frames)
            try:
                link.write(deflated if link.deflates else frames)
            except BROKEN:
                self._endings.break_off(link)

    # --- paces

    def tick(self) -> None:
        """Serve the paces whose moment has come, and look after who lags."""
        now_ms = int(self._clock.monotonic() * 1000)
        for interval_ms, due in self._due.items():
            boundary = now_ms // interval_ms
            if self._boundaries.get(interval_ms) != boundary:
                self._boundaries[interval_ms] = boundary
                waiting, self._due[interval_ms] = due, {}
                with self._endings:
                    for channel in waiting:
                        tier = channel.paced.get(interval_ms)
                        if tier is not None:
                            self._flush_paced(channel, tier)
        self.laggards.tick()

    def _flush_paced(self, channel: Channel, tier: Tier) -> None:
        head = channel.view.position.seq
        if tier.last != head:
            self._send_round(channel, tier)
            tier.last, tier.oldest_ms = head, None
        for client, lag in tuple(tier.odd.items()):
            if client.link.clogged:
                self.laggards.watch(client)
                self._due[tier.interval_ms][channel] = None
            elif self.laggards.send_missed(client, channel, lag):
                # It may have been owed this besides: twice would be once too often.
                if client.outbox is not None:
                    client.outbox.drop(channel)
                del tier.odd[client]
                channel.sync(tier, client)
        if not len(tier):
            del channel.paced[tier.interval_ms]

    def _send_round(self, channel: Channel, tier: Tier) -> None:
        groups, tier.groups = tier.groups, ({}, {})
        if not groups[0] and not groups[1]:
            return
        group = Lag(tier.last, tier.oldest_ms)
        events = channel.view.missed(
            group, int(self._clock.time() * 1000), self._piece_bytes
        ).events
        serial = self._offsets.take(len(events))
        tier.rounds.append(self._offsets.last, channel.view.position.seq)
        for numbered, (clients, synced) in enumerate(zip(groups, tier.groups, strict=True)):
            if not clients:
                continue
            frames = b"".join(
                self._offsets.frame(event, serial + index) if numbered else plain_frame(event)
                for index, event in enumerate(events)
            )
            deflated: bytes | None = None
            for link, client in clients.items():
                if link.clogged:
                    tier.odd[client] = Lag(group.last, group.oldest_ms)
                    client.note(channel, serial, group.last)
                    continue
                if link.deflates:
                    deflated = deflated or deflate_text_frames(frames)
                if client.send(frames, deflated):
                    synced[link] = client

    # --- the feed's state

    def set_stale(self, channel: Channel, since_ms: int | None) -> None:
        """The topic's feed has gone silent, or is back; all who listen are told."""
        channel.stale_since_ms = since_ms
        if since_ms is None:
            self.on_revival(channel)
        self.flush_channel(channel)
        event = channel.status()
        if event is None:
            return
        channel.status_serial = serial = self._offsets.take()
        frames = (plain_frame(event), self._offsets.frame(event, serial))
        with self._endings:
            self._say_status(channel, frames)

    def _say_status(self, channel: Channel, frames: tuple[bytes, bytes]) -> None:
        for client in channel.clients():
            if not client.link.clogged:
                client.send(frames[client.trail is not None])
                continue
            pace = client.channels[channel]
            lag = channel.part(client, pace)
            lag.needs_status = True
            channel.join(client, pace, lag)
            if pace:
                self._due[pace][channel] = None
                self.laggards.watch(client)
            else:
                self.laggards.fall(client, channel, lag)

    def say(self, channel: Channel, event: bytes, *, skip: frozenset[str] = frozenset()) -> int:
        """Send something that is worth nothing later to all who can take it now; who could not.

        What waits goes first, so that it never stands before a message that is older.
        """
        self.flush_channel(channel)
        seq = channel.view.position.seq
        frames = (plain_frame(event), self._offsets.frame(event, self._offsets.last))
        passed_over = 0
        with self._endings:
            for client, place in channel.places():
                if client.id in skip:
                    continue
                if place == seq and not client.link.clogged:
                    client.send(frames[client.trail is not None])
                else:
                    passed_over += 1
        return passed_over

    def tell(self, channel: Channel, event: bytes, *, skip: frozenset[str] = frozenset()) -> None:
        """Send something that everybody has to hear, though it has no place of its own."""
        self.flush_channel(channel)
        serial = self._offsets.take()
        if channel.told is not None:
            channel.told.append(Saying(serial, channel.view.position.seq, event, skip))
        frames = (plain_frame(event), self._offsets.frame(event, serial))
        with self._endings:
            for client in channel.clients():
                if client.id not in skip and not self._is_told_later(client, channel):
                    self._force(client, frames[client.trail is not None])

    def _is_told_later(self, client: Client, channel: Channel) -> bool:
        """Whether it is being told what it missed, in order: this comes with the rest."""
        lag = channel.tier(client.channels[channel]).odd.get(client)
        return lag is not None and lag.told is not None

    def tell_one(self, connection_id: str, event: bytes) -> bool:
        """Send something to one client that it has to hear; False where it is not here now."""
        client = self._clients.get(connection_id)
        if client is None:
            client = self._parked.get(connection_id)
            if client is not None:
                self._remember(client, event)
            return False
        if client.trail is None:
            return self._force(client, plain_frame(event))
        return self._force(client, self._offsets.frame(event, self._remember(client, event)))

    def ask_one(self, connection_id: str, frame: bytes) -> bool:
        """Send a frame as it is to one client, once; False where it is not here."""
        client = self._clients.get(connection_id)
        return client is not None and self._force(client, frame)

    def _remember(self, client: Client, event: bytes) -> int:
        if client.told is None:
            client.told = Told(max_count=_MAX_TOLD, max_bytes=_MAX_TOLD_BYTES)
        serial = self._offsets.take()
        client.told.append(Saying(serial, 0, event))
        return serial

    def _repeat(self, client: Client, serial: int) -> None:
        """Say again to one client what was said to it after this."""
        if client.told is not None:
            # With a new number each: cut off once more, it must not get both.
            for event in client.told.take_back(serial):
                self.tell_one(client.id, event)

    def _force(self, client: Client, frame: bytes) -> bool:
        """Write though its way is full, unless too much waits already: then it is let go."""
        if client.link in self._endings:
            # It would have this, and not what it has to go for.
            return False
        if client.link.buffered_bytes + len(frame) > self._config.buffer_bytes:
            self.laggards.let_go(client)
            return False
        return client.send(frame)
