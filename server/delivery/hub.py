"""Delivers each published entry to every subscriber of this node, encoded once."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from server.core.counters import Counters
from server.core.log.backlog import Lag
from server.core.log.entries import Entry, Reset
from server.core.market.topic_state import ChannelState
from server.core.recovery.offsets import Offsets
from server.delivery.catch_up import (
    ExportedClient,
    ExportedSubscription,
    export_client,
    plan_resume,
    restored_lag,
)
from server.delivery.channel import Channel
from server.delivery.conflation import ConflatedTiers
from server.delivery.connections import ClientRegistry
from server.delivery.deferred_close import DeferredClose
from server.delivery.flusher import Flusher
from server.delivery.pushes import Pushes
from server.delivery.slow_consumers import Schedule, SlowConsumers
from server.delivery.subscriptions import ClientSubscriptions
from server.ports import Clock, Link


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """Limits of buffering and recovery per client."""

    buffer_bytes: int = 256 * 1024
    stalled_seconds: float = 30.0
    # Whether clients may resume, and how many writes of a topic are remembered for that.
    recoverable: bool = False
    backlog_messages: int = 1000

    @property
    def max_batch_bytes(self) -> int:
        """The bound of one write: a quarter of the buffer, so that one more still fits."""
        return self.buffer_bytes // 4


class Hub:
    """The clients and channels of this node.

    Entries of one turn of the loop go out as one write per client. Clients with the same interval
    and position share the encoded bytes. Nothing is queued for a slow consumer: only its lag in
    each channel is kept, and when it reads again it catches up from there.
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
        self._max_batch_bytes = max_batch_bytes = config.max_batch_bytes
        self._clock = clock
        self._offsets = offsets = offsets or Offsets("0000")
        self._deferred_close = deferred_close = DeferredClose()
        self._channels: dict[str, Channel] = {}
        # Entries received while the channel's state is being fetched.
        self._opening: dict[str, list[Entry | Reset]] = {}
        # Called when a stale topic is live again; set by `Freshness`.
        self.on_live: Callable[[Channel], None] = lambda channel: None
        self._flusher = flusher = Flusher(
            clock=clock,
            schedule=schedule,
            deferred_close=deferred_close,
            # The flusher and the slow consumers need each other.
            on_clogged=lambda client, channel, lag: slow_consumers.add_lag(client, channel, lag),
            max_batch_bytes=max_batch_bytes,
        )
        self.slow_consumers = slow_consumers = SlowConsumers(
            clock=clock,
            counters=counters,
            schedule=schedule,
            flush=flusher.flush_channel,
            join_tier=lambda client, channel, interval_ms, lag: subscriptions.join_tier(
                client, channel, interval_ms, lag
            ),
            offsets=offsets,
            deferred_close=deferred_close,
            max_batch_bytes=max_batch_bytes,
            stalled_seconds=config.stalled_seconds,
        )
        self._conflated_tiers = conflated_tiers = ConflatedTiers(
            clock=clock,
            offsets=offsets,
            deferred_close=deferred_close,
            slow_consumers=slow_consumers,
            max_batch_bytes=max_batch_bytes,
        )
        self._registry = registry = ClientRegistry(
            offsets=offsets, deferred_close=deferred_close, slow_consumers=slow_consumers
        )
        self._subscriptions = subscriptions = ClientSubscriptions(
            registry=registry,
            flusher=flusher,
            conflated_tiers=conflated_tiers,
            slow_consumers=slow_consumers,
            offsets=offsets,
        )
        self._pushes = pushes = Pushes(
            registry=registry,
            flusher=flusher,
            conflated_tiers=conflated_tiers,
            slow_consumers=slow_consumers,
            offsets=offsets,
            deferred_close=deferred_close,
            buffer_bytes=config.buffer_bytes,
        )
        # Bound methods of the parts, documented there: no second call per message.
        self.flush, self.flush_channel = flusher.flush, flusher.flush_channel
        self.attach, self.detach, self.park = registry.attach, registry.detach, registry.park
        self.interval_and_seq, self.is_subscribed = (
            subscriptions.interval_and_seq,
            subscriptions.is_subscribed,
        )
        self.subscribe, self.unsubscribe = subscriptions.subscribe, subscriptions.unsubscribe
        self.mark_reply_sent, self.schedule_snapshot = (
            subscriptions.mark_reply_sent,
            subscriptions.schedule_snapshot,
        )
        self.broadcast_transient, self.broadcast = pushes.broadcast_transient, pushes.broadcast
        self.send_to, self.send_with_ack = pushes.send_to, pushes.send_with_ack
        self.tick = conflated_tiers.tick

    # --- clients

    def resume(
        self, connection_id: str, link: Link, offset: str | None, first_frames: bytes = b""
    ) -> bool:
        """Resume a parked client after `offset`: send `first_frames`, then what it missed.

        Returns False and changes nothing if what it missed is not known exactly.
        """
        registry = self._registry
        client = registry.parked[connection_id]
        self._flusher.flush()
        plan = plan_resume(client, offset, self._offsets)
        if plan is None:
            return False
        del registry.parked[connection_id]
        client.link = link
        registry.clients[connection_id] = client
        with self._deferred_close:
            client.send(first_frames)
            self._pushes.resend(client, plan.serial)
            for channel, lag in plan.lags.items():
                del channel.parked[client]
                interval_ms = client.interval_for(channel)
                client.channels[channel] = interval_ms
                # A client at its tier's position goes on with the tier, even behind the head.
                is_behind = lag.has_pending or lag.last_seq != channel.state.position.seq
                if not channel.join(client, interval_ms, lag) and is_behind:
                    self.slow_consumers.schedule_catch_up(client, channel, lag)
            self.slow_consumers.serve(client)
        return True

    def last_offset(self, connection_id: str) -> str:
        """The offset of the last write to a parked client; KeyError if unknown."""
        return self._offsets.format(self._registry.parked[connection_id].last_serial)

    def export(self, connection_id: str, offset: str | None) -> ExportedClient | None:
        """What another node needs to resume a parked client after `offset`; KeyError if unknown.

        Returns None if what it missed is not known exactly. The client stays: `detach` it.
        """
        self._flusher.flush()
        client = self._registry.parked[connection_id]
        plan = plan_resume(client, offset, self._offsets)
        return None if plan is None else export_client(client, plan)

    def restore(
        self,
        connection_id: str,
        link: Link,
        foreign_offset: str | None,
        subscriptions: Collection[ExportedSubscription],
        pushes: Collection[bytes] = (),
    ) -> bool:
        """Park a client exported by another node, as if it had disconnected here.

        Returns False and changes nothing if this node has the connection, if a channel is not
        open here, or if a position is unknown here. It resumes after `foreign_offset` or None,
        and gets the pushes before the entries that it missed.
        """
        self._flusher.flush()
        registry = self._registry
        if connection_id in registry.clients or connection_id in registry.parked:
            return False
        lags: list[tuple[Channel, int, Lag]] = []
        for exported in subscriptions:
            channel = self._channels.get(exported.channel)
            lag = None if channel is None else restored_lag(channel, exported)
            if channel is None or lag is None:
                return False
            lags.append((channel, exported.interval_ms, lag))
        client = registry.import_parked(connection_id, link, foreign_offset)
        for channel, interval_ms, lag in lags:
            if interval_ms:
                client.requested_ms[channel] = interval_ms
            client.channels[channel] = interval_ms
            channel.parked[client] = None
            client.add_checkpoint(channel, client.last_serial, lag.last_seq, lag=lag)
        for event in pushes:
            self._pushes.send_to(connection_id, event)
        return True

    def __contains__(self, connection_id: object) -> bool:
        """Whether this connection is attached and not parked."""
        return connection_id in self._registry.clients

    @property
    def link_count(self) -> int:
        """The number of attached connections, without parked ones."""
        return len(self._registry.clients)

    # --- channels

    @property
    def topic_count(self) -> int:
        """The number of open topics and sessions."""
        return len(self._channels)

    def channel(self, name: str) -> Channel | None:
        """An open channel; None if this node does not follow it."""
        return self._channels.get(name)

    def channels(self) -> tuple[Channel, ...]:
        """All open channels."""
        return tuple(self._channels.values())

    def prepare(self, name: str) -> None:
        """Hold the entries of a channel until `open` or `abandon`."""
        if name not in self._channels:
            self._opening.setdefault(name, [])

    def open(self, name: str, state: ChannelState) -> Channel:
        """Open a channel at `state`, and apply the entries held since `prepare`."""
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
        """Close a channel; False if it has subscribers or parked clients."""
        channel = self._channels.get(name)
        if channel is not None:
            if channel.is_needed:
                return False
            del self._channels[name]
            self._flusher.dirty.pop(channel, None)
            self._conflated_tiers.forget(channel)
        return True

    def abandon(self, name: str) -> None:
        """Discard the entries held since `prepare`."""
        self._opening.pop(name, None)

    # --- entries

    @property
    def delivered(self) -> int:
        """Messages written, counted once per recipient."""
        return self._flusher.delivered

    def deliver(self, entry: Entry) -> None:
        """Deliver an entry; call this in the order of the channel. No-op if it is not open."""
        channel = self._channels.get(entry.channel)
        if channel is None:
            held = self._opening.get(entry.channel)
            if held is not None:
                held.append(entry)
            return
        flusher = self._flusher
        if not flusher.is_scheduled:
            flusher.begin_turn()
        channel.active_at = flusher.turn_began
        if channel.stale_since_ms is not None:
            self.set_stale(channel, None)
        if channel.accept(entry):
            flusher.dirty[channel] = None
        for interval_ms in channel.conflated:
            self._conflated_tiers.due[interval_ms][channel] = None

    def reset(self, reset: Reset) -> None:
        """Restart a channel after lost entries or a new epoch, with all its subscribers."""
        channel = self._channels.get(reset.channel)
        if channel is None:
            held = self._opening.get(reset.channel)
            if held is not None:
                held.append(reset)
            return
        with self._deferred_close:
            self._subscriptions.reset(channel, reset)

    def set_stale(self, channel: Channel, since_ms: int | None) -> None:
        """Mark a topic stale since then, or live if None, and send the status."""
        channel.stale_since_ms = since_ms
        if since_ms is None:
            self.on_live(channel)
        self._pushes.broadcast_status(channel)
