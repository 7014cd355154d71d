"""Who hears which topic, at which pace, and from where on."""

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
    """Puts clients into the tiers of topics, and takes them out."""

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
        """How often a client is served in a topic, in milliseconds, and what it was last sent."""
        client = self._registry.clients[connection_id]
        pace = client.channels[channel]
        tier = channel.tier(pace)
        lag = tier.unsynced.get(client)
        return pace, tier.last_seq if lag is None else lag.last_seq

    def is_subscribed(self, connection_id: str, channel: Channel) -> bool:
        """Whether the client hears this topic."""
        return channel in self._registry.clients[connection_id].channels

    def subscribe(self, connection_id: str, channel: Channel, interval_ms: int) -> int:
        """The client hears the topic from its head on; the pace that it is served at."""
        client = self._registry.clients[connection_id]
        self._flusher.flush_channel(channel)
        head = channel.state.position.seq
        before = self._leave(client, channel)
        if client.checkpoints is not None and (
            before is None or before.has_pending or before.last_seq != head
        ):
            client.checkpoints.restart(
                channel, ReplyPosition(self._offsets.last_serial, had_position=before is not None)
            )
        if interval_ms:
            client.requested_ms[channel] = interval_ms
        pace = client.interval_for(channel)
        self.join_tier(client, channel, pace, Lag(head))
        owed = before is not None and before.needs_status
        if owed or channel.stale_since_ms is not None:
            self._schedule_catch_up(client, channel, Lag(head, needs_status=True))
        return pace

    def mark_reply_sent(self, connection_id: str) -> None:
        """The client is told now where it stands in what it was made to hear."""
        client = self._registry.clients.get(connection_id)
        if client is not None and client.checkpoints is not None:
            client.checkpoints.reply_sent(self._offsets.last_serial)

    def schedule_snapshot(self, connection_id: str, channel: Channel) -> None:
        """The client has the position but not the state: that comes as a message."""
        lag = Lag(channel.state.position.seq, needs_snapshot=True)
        lag.needs_status = channel.stale_since_ms is not None
        self._schedule_catch_up(self._registry.clients[connection_id], channel, lag)

    def unsubscribe(self, connection_id: str, channel: Channel) -> None:
        """The client wants no more of it, or is to have no more of it when it is back.

        One that is gone by now is nothing.
        """
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
        """Put a client where it belongs, and see to it that it gets what it lacks there."""
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
        """Move the ground, and all who listen with it."""
        self._flusher.flush_channel(channel)
        view, before = channel.state, channel.state.position
        begun = reset.head.epoch != before.epoch
        parted = [
            (client, channel.leave(client, client.channels[channel]))
            for client in channel.clients()
        ]
        channel.reset(reset)
        for client, lag in parted:
            lasts = lag.last_seq == before.seq and lag.pushed_serial is None and begun
            if view.can_resync:
                lag.needs_resync = lag.needs_status = True
                lag.needs_snapshot = reset.latest is not None
            elif not lasts:
                self._slow_consumers.disconnect(client, "messages were lost on their way here")
            if not lag.needs_snapshot:
                lag.last_seq, lag.oldest_ms = reset.head.seq, None
            channel.join(client, client.channels[channel], lag)
            if view.can_resync:
                self._slow_consumers.schedule_catch_up(client, channel, lag)
        # Whoever comes back and has seen no more than until here stands nowhere.
        channel.reset_serial = self._offsets.allocate()

    def _leave(self, client: Client, channel: Channel) -> Lag | None:
        client.requested_ms.pop(channel, None)
        pace = client.channels.pop(channel, None)
        if pace is None:
            return None
        if client.backlog is not None:
            client.backlog.drop(channel)
        return channel.leave(client, pace)

    def _schedule_catch_up(self, client: Client, channel: Channel, lag: Lag) -> None:
        pace = client.channels[channel]
        channel.leave(client, pace)
        channel.join(client, pace, lag)
        self._slow_consumers.schedule_catch_up(client, channel, lag)
