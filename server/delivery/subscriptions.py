"""Subscribes clients to channels, and unsubscribes them."""

from server.core.log.backlog import Lag
from server.core.log.entries import Reset
from server.core.recovery.checkpoints import ReplyPosition
from server.core.recovery.offsets import Offsets
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.conflation import ConflatedTiers
from server.delivery.connections import ClientRegistry
from server.delivery.flusher import Flusher
from server.delivery.slow_consumers import SlowConsumers


class ClientSubscriptions:
    """Adds clients to the tiers of channels, and removes them."""

    def __init__(
        self,
        *,
        registry: ClientRegistry,
        flusher: Flusher,
        conflated_tiers: ConflatedTiers,
        slow_consumers: SlowConsumers,
        offsets: Offsets,
    ) -> None:
        self._registry = registry
        self._flusher = flusher
        self._conflated_tiers = conflated_tiers
        self._slow_consumers = slow_consumers
        self._offsets = offsets

    def interval_and_seq(self, connection_id: str, channel: Channel) -> tuple[int, int]:
        """A client's interval in a channel, and the seq of the last entry sent to it."""
        client = self._registry.clients[connection_id]
        interval_ms = client.channels[channel]
        tier = channel.tier(interval_ms)
        lag = tier.unsynced.get(client)
        return interval_ms, tier.last_seq if lag is None else lag.last_seq

    def is_subscribed(self, connection_id: str, channel: Channel) -> bool:
        """Whether an attached client is subscribed."""
        return channel in self._registry.clients[connection_id].channels

    def subscribe(self, connection_id: str, channel: Channel, interval_ms: int) -> int:
        """Subscribe a client from the head on; returns the granted interval."""
        client = self._registry.clients[connection_id]
        self._flusher.flush_channel(channel)
        head = channel.state.position.seq
        previous = self._leave(client, channel)
        if client.checkpoints is not None and (
            previous is None or previous.has_pending or previous.last_seq != head
        ):
            client.checkpoints.restart(
                channel, ReplyPosition(self._offsets.last_serial, had_position=previous is not None)
            )
        if interval_ms:
            client.requested_ms[channel] = interval_ms
        granted_ms = client.interval_for(channel)
        self.join_tier(client, channel, granted_ms, Lag(head))
        needs_status = previous is not None and previous.needs_status
        if needs_status or channel.stale_since_ms is not None:
            self._schedule_catch_up(client, channel, Lag(head, needs_status=True))
        return granted_ms

    def mark_reply_sent(self, connection_id: str) -> None:
        """Record that the reply with the client's positions goes out now."""
        client = self._registry.clients.get(connection_id)
        if client is not None and client.checkpoints is not None:
            client.checkpoints.reply_sent(self._offsets.last_serial)

    def schedule_snapshot(self, connection_id: str, channel: Channel) -> None:
        """Send a snapshot as a message, because the reply carried only the position."""
        lag = Lag(channel.state.position.seq, needs_snapshot=True)
        lag.needs_status = channel.stale_since_ms is not None
        self._schedule_catch_up(self._registry.clients[connection_id], channel, lag)

    def unsubscribe(self, connection_id: str, channel: Channel) -> None:
        """Unsubscribe an attached or parked client; no-op if it has gone."""
        parked = self._registry.parked.get(connection_id)
        if parked is not None:
            del parked.channels[channel]
            parked.requested_ms.pop(channel, None)
            channel.parked.pop(parked, None)
            if parked.checkpoints is not None:
                parked.checkpoints.drop(channel)
            return
        client = self._registry.clients.get(connection_id)
        if client is not None:
            self._leave(client, channel)
            if client.checkpoints is not None:
                client.checkpoints.drop(channel)

    def join_tier(self, client: Client, channel: Channel, interval_ms: int, lag: Lag) -> None:
        """Add a client to a tier, and schedule what it lacks there."""
        client.channels[channel] = interval_ms
        if channel.join(client, interval_ms, lag):
            return
        if lag.last_seq == channel.state.position.seq and not lag.has_pending:
            return
        if interval_ms:
            self._conflated_tiers.due[interval_ms][channel] = None
        else:
            self._slow_consumers.schedule_catch_up(client, channel, lag)

    def reset(self, channel: Channel, reset: Reset) -> None:
        """Restart a channel; disconnect the subscribers that no event can tell of a gap."""
        self._flusher.flush_channel(channel)
        state, previous = channel.state, channel.state.position
        is_new_epoch = reset.head.epoch != previous.epoch
        removed = [
            (client, channel.leave(client, client.channels[channel]))
            for client in channel.clients()
        ]
        channel.reset(reset)
        for client, lag in removed:
            is_unaffected = (
                lag.last_seq == previous.seq and lag.pushed_serial is None and is_new_epoch
            )
            if state.can_resync:
                lag.needs_resync = lag.needs_status = True
                lag.needs_snapshot = reset.latest is not None
            elif not is_unaffected:
                self._slow_consumers.disconnect(
                    client, "session messages were lost: reconnect and fetch them"
                )
            if not lag.needs_snapshot:
                lag.last_seq, lag.oldest_ms = reset.head.seq, None
            channel.join(client, client.channels[channel], lag)
            if state.can_resync:
                self._slow_consumers.schedule_catch_up(client, channel, lag)
        # A client that saw nothing after this serial cannot resume.
        channel.reset_serial = self._offsets.allocate()

    def _leave(self, client: Client, channel: Channel) -> Lag | None:
        client.requested_ms.pop(channel, None)
        interval_ms = client.channels.pop(channel, None)
        if interval_ms is None:
            return None
        if client.backlog is not None:
            client.backlog.drop(channel)
        return channel.leave(client, interval_ms)

    def _schedule_catch_up(self, client: Client, channel: Channel, lag: Lag) -> None:
        interval_ms = client.channels[channel]
        channel.leave(client, interval_ms)
        channel.join(client, interval_ms, lag)
        self._slow_consumers.schedule_catch_up(client, channel, lag)
