"""Sends events that are not entries of a log: feed status, presence, signals, notices."""

from server.core.recovery.offsets import plain_frame
from server.core.wire.frames import deflate_text_frames
from server.delivery.channel import Channel
from server.delivery.clients import Client, Subscription
from server.delivery.conflation import ConflatedTiers
from server.delivery.context import DeliveryContext
from server.delivery.flusher import Flusher
from server.delivery.registry import ClientRegistry
from server.delivery.slow_consumers import SlowConsumers


class Pushes:
    """Writes pushes at once, after the pending entries; a push has no position."""

    def __init__(
        self,
        context: DeliveryContext,
        registry: ClientRegistry,
        flusher: Flusher,
        conflated_tiers: ConflatedTiers,
        slow_consumers: SlowConsumers,
    ) -> None:
        self._offsets = context.offsets
        self._deferred_close = context.deferred_close
        self._writes = context.writes
        self._buffer_bytes = context.config.buffer_bytes
        self._registry = registry
        self._flusher = flusher
        self._conflated_tiers = conflated_tiers
        self._slow_consumers = slow_consumers

    def broadcast_status(self, channel: Channel) -> None:
        """Send the feed's state to all subscribers; slow consumers get it when they catch up."""
        self._flusher.flush_channel(channel)
        event = channel.status()
        if event is None:
            return
        serial = self._offsets.allocate()
        channel.status_sent(serial)
        frames = (plain_frame(event), self._offsets.frame(event, serial))
        with self._deferred_close:
            for subscription in channel.subscriptions():
                client = subscription.client
                if client.link.clogged:
                    self._owe_status(channel, subscription)
                else:
                    self._write(client, frames[client.is_numbered])

    def _write(self, client: Client, frame: bytes) -> None:
        link = client.link
        self._writes.write(link, deflate_text_frames(frame) if link.deflates else frame)

    def _owe_status(self, channel: Channel, subscription: Subscription) -> None:
        interval_ms = subscription.interval_ms
        lag = channel.leave(subscription)
        lag.require_status()
        channel.join(subscription, interval_ms, lag)
        if interval_ms:
            self._conflated_tiers.add_interval(channel, interval_ms)
            self._slow_consumers.add(subscription.client)
        else:
            self._slow_consumers.add(subscription.client, channel)

    def broadcast_transient(
        self, channel: Channel, event: bytes, *, excluded: frozenset[str]
    ) -> int:
        """Send an event to all that have the newest entry; returns how many were skipped."""
        self._flusher.flush_channel(channel)
        seq = channel.state.position.seq
        frames = (plain_frame(event), self._offsets.frame(event, self._offsets.last_serial))
        skipped = 0
        with self._deferred_close:
            for tier in tuple(channel.tiers()):
                for subscription in tier.all():
                    client, lag = subscription.client, subscription.lag
                    if client.id in excluded:
                        continue
                    last_seq = tier.last_seq if lag is None else lag.last_seq
                    if last_seq == seq and not client.link.clogged:
                        self._write(client, frames[client.is_numbered])
                    else:
                        client.count_dropped()
                        skipped += 1
        return skipped

    def broadcast(self, channel: Channel, event: bytes, *, excluded: frozenset[str]) -> None:
        """Send an event to all subscribers, and log it for parked clients."""
        self._flusher.flush_channel(channel)
        serial = channel.log_push(event, excluded)
        frames = (plain_frame(event), self._offsets.frame(event, serial))
        with self._deferred_close:
            for subscription in channel.subscriptions():
                client, lag = subscription.client, subscription.lag
                # A client that is still receiving earlier pushes gets this one after them.
                replays = lag is not None and lag.pushed_serial is not None
                if client.id not in excluded and not replays:
                    self._write_bounded(client, frames[client.is_numbered])

    def send_to(self, connection_id: str, event: bytes) -> bool:
        """Send an event to one client; False if not sent now. A parked client gets it on resume."""
        client = self._registry.clients.get(connection_id)
        if client is None:
            client = self._registry.parked.get(connection_id)
            if client is not None:
                client.log_push(event, self._offsets)
            return False
        if not client.is_numbered:
            return self._send_bounded(client, plain_frame(event))
        serial = client.log_push(event, self._offsets)
        return self._send_bounded(client, self._offsets.frame(event, serial))

    def send_with_ack(self, connection_id: str, frame: bytes) -> bool:
        """Send a frame that asks for an acknowledgement, without logging it; False if not sent."""
        client = self._registry.clients.get(connection_id)
        return client is not None and self._send_bounded(client, frame)

    def _send_bounded(self, client: Client, frame: bytes) -> bool:
        return self._has_room(client, frame) and client.send(frame)

    def _write_bounded(self, client: Client, frame: bytes) -> None:
        if self._has_room(client, frame):
            self._write(client, frame)

    def _has_room(self, client: Client, frame: bytes) -> bool:
        """Whether to write, even if the link is clogged; disconnect one whose buffer is full."""
        if client.link in self._deferred_close:
            # It is about to close because an earlier event did not reach it.
            return False
        if client.link.buffered_bytes + len(frame) > self._buffer_bytes:
            self._slow_consumers.disconnect(client)
            return False
        return True
