"""Brings each published entry to every subscriber of this node: one encoding, one write each."""

from collections.abc import Callable
from dataclasses import dataclass

from server.core.counters import Counters
from server.core.log.entries import Entry, Reset
from server.core.recovery.offsets import Offsets
from server.delivery.catch_up import plan_resume
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.conflation import ConflatedTiers
from server.delivery.connections import ClientRegistry
from server.delivery.deferred_close import DeferredClose
from server.delivery.flusher import Flusher
from server.delivery.pushes import Pushes
from server.delivery.slow_consumers import Schedule, SlowConsumers
from server.delivery.subscriptions import ClientSubscriptions
from server.delivery.topic_state import ChannelState
from server.ports import Clock, Link


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """How much waits for one client, and for how long."""

    buffer_bytes: int = 256 * 1024
    stalled_seconds: float = 30.0
    # Whether clients that were cut off may be back, and how many messages of a topic are numbered.
    recoverable: bool = False
    backlog_messages: int = 1000

    @property
    def max_batch_bytes(self) -> int:
        """One write: a quarter, so that one more still fits where the client just takes none."""
        return self.buffer_bytes // 4


class Hub:
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
        self._max_batch_bytes = piece_bytes = config.max_batch_bytes
        self._clock = clock
        self._offsets = offsets = offsets or Offsets("0000")
        self._deferred_close = endings = DeferredClose()
        self._channels: dict[str, Channel] = {}
        # Entries that come while the state before them is still being fetched.
        self._opening: dict[str, list[Entry | Reset]] = {}
        # Told when a topic speaks again that had gone silent.
        self.on_live: Callable[[Channel], None] = lambda channel: None
        self._flusher = turn = Flusher(
            clock=clock,
            schedule=schedule,
            deferred_close=endings,
            # Whoever lags needs the turn, and the turn finds out who lags.
            on_clogged=lambda client, channel, lag: laggards.add_lag(client, channel, lag),
            max_batch_bytes=piece_bytes,
        )
        self.slow_consumers = laggards = SlowConsumers(
            clock=clock,
            counters=counters,
            schedule=schedule,
            flush=turn.flush_channel,
            join_tier=lambda client, channel, pace, lag: hearing.join_tier(
                client, channel, pace, lag
            ),
            offsets=offsets,
            deferred_close=endings,
            max_batch_bytes=piece_bytes,
            stalled_seconds=config.stalled_seconds,
        )
        self._conflated_tiers = paces = ConflatedTiers(
            clock=clock,
            offsets=offsets,
            deferred_close=endings,
            slow_consumers=laggards,
            max_batch_bytes=piece_bytes,
        )
        self._registry = roster = ClientRegistry(
            offsets=offsets, deferred_close=endings, slow_consumers=laggards
        )
        self._subscriptions = hearing = ClientSubscriptions(
            registry=roster,
            flusher=turn,
            conflated_tiers=paces,
            slow_consumers=laggards,
            offsets=offsets,
        )
        self._pushes = sayings = Pushes(
            registry=roster,
            flusher=turn,
            conflated_tiers=paces,
            slow_consumers=laggards,
            offsets=offsets,
            deferred_close=endings,
            buffer_bytes=config.buffer_bytes,
        )
        # What each part does, as it is: one call, and described there.
        self.flush, self.flush_channel = turn.flush, turn.flush_channel
        self.attach, self.detach, self.park = roster.attach, roster.detach, roster.park
        self.interval_and_seq, self.is_subscribed = hearing.interval_and_seq, hearing.is_subscribed
        self.subscribe, self.unsubscribe = hearing.subscribe, hearing.unsubscribe
        self.mark_reply_sent, self.schedule_snapshot = (
            hearing.mark_reply_sent,
            hearing.schedule_snapshot,
        )
        self.broadcast_transient, self.broadcast = sayings.broadcast_transient, sayings.broadcast
        self.send_to, self.send_with_ack = sayings.send_to, sayings.send_with_ack
        self.tick = paces.tick

    # --- clients

    def resume(
        self, connection_id: str, link: Link, offset: str | None, first_frames: bytes = b""
    ) -> bool:
        """It is back, and says what it saw last: it is sent what it lacks, and goes on.

        The `first` frames come before that: they tell it that it is back.

        False, and nothing has changed, where that cannot be told exactly.
        """
        roster = self._registry
        client = roster.parked[connection_id]
        self._flusher.flush()
        lags = plan_resume(client, offset, self._offsets)
        if lags is None:
            return False
        del roster.parked[connection_id]
        client.link = link
        roster.clients[connection_id] = client
        with self._deferred_close:
            client.send(first_frames)
            self._pushes.resend(client, lags.serial)
            for channel, lag in lags.lags.items():
                del channel.parked[client]
                pace = client.interval_for(channel)
                client.channels[channel] = pace
                # Who stands where its pace stands goes on with it, though the head may be further.
                lacks = lag.has_pending or lag.last_seq != channel.state.position.seq
                if not channel.join(client, pace, lag) and lacks:
                    self.slow_consumers.schedule_catch_up(client, channel, lag)
            self.slow_consumers.serve(client)
        return True

    def parked_client(self, connection_id: str) -> Client:
        """One that was cut off and may be back; nothing waits to be written."""
        self._flusher.flush()
        return self._registry.parked[connection_id]

    def import_parked(self, connection_id: str, link: Link, foreign_offset: str | None) -> Client:
        """One that was cut off on another node, and may be back here; it listens to nothing yet."""
        self._flusher.flush()
        return self._registry.import_parked(connection_id, link, foreign_offset)

    def __contains__(self, connection_id: object) -> bool:
        """Whether this connection can be written to."""
        return connection_id in self._registry.clients

    @property
    def link_count(self) -> int:
        """How many connections can be written to."""
        return len(self._registry.clients)

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

    def open(self, name: str, state: ChannelState) -> Channel:
        """Follow a topic from the state that the view has, and what was held since."""
        channel = self._channels[name] = Channel(
            name,
            state,
            self._clock.monotonic(),
            offsets=self._offsets,
            max_messages=self._config.backlog_messages,
            recoverable=self._config.recoverable,
        )
        for held in self._opening.pop(name, ()):
            if isinstance(held, Entry):
                channel.accept(held)
            elif held.head != state.position:
                channel.take_batches(self._max_batch_bytes)
                channel.reset(held)
        channel.take_batches(self._max_batch_bytes)
        return channel

    def close(self, name: str) -> bool:
        """Let go of a topic, unless somebody listens to it or may be back to do so."""
        channel = self._channels.get(name)
        if channel is not None:
            if channel.is_needed:
                return False
            del self._channels[name]
            self._flusher.dirty.pop(channel, None)
            self._conflated_tiers.forget(channel)
        return True

    def abandon(self, name: str) -> None:
        """Nobody waits for the topic's state any more; what was held for it is let go."""
        self._opening.pop(name, None)

    # --- what is published

    @property
    def delivered(self) -> int:
        """How many messages were written, each as often as it had readers."""
        return self._flusher.delivered

    def deliver(self, entry: Entry) -> None:
        """Take one entry, in the order of its channel."""
        channel = self._channels.get(entry.channel)
        if channel is None:
            held = self._opening.get(entry.channel)
            if held is not None:
                held.append(entry)
            return
        turn = self._flusher
        if not turn.is_scheduled:
            turn.begin_turn()
        channel.active_at = turn.turn_began
        if channel.stale_since_ms is not None:
            self.set_stale(channel, None)
        if channel.accept(entry):
            turn.dirty[channel] = None
        for interval_ms in channel.conflated:
            self._conflated_tiers.due[interval_ms][channel] = None

    def reset(self, reset: Reset) -> None:
        """What came of a channel cannot be told: all who listen begin anew where it stands now."""
        channel = self._channels.get(reset.channel)
        if channel is None:
            held = self._opening.get(reset.channel)
            if held is not None:
                held.append(reset)
            return
        with self._deferred_close:
            self._subscriptions.reset(channel, reset)

    def set_stale(self, channel: Channel, since_ms: int | None) -> None:
        """The topic's feed has gone silent, or is back; all who listen are told."""
        channel.stale_since_ms = since_ms
        if since_ms is None:
            self.on_live(channel)
        self._pushes.broadcast_status(channel)
