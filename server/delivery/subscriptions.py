"""Subscribes clients to channels, and moves their subscriptions between tiers."""

from collections.abc import Iterable

from server.core.log.backlog import Lag
from server.core.log.entries import Reset
from server.delivery.catch_up import CatchUpSender
from server.delivery.channel import Channel
from server.delivery.clients import Client, Subscription
from server.delivery.conflation import ConflatedTiers
from server.delivery.context import DeliveryContext
from server.delivery.flusher import Flusher
from server.delivery.registry import ClientRegistry
from server.delivery.slow_consumers import SlowConsumers


class ClientSubscriptions:
    """Adds clients to the tiers of channels, brings them up to date there, and removes them."""

    def __init__(
        self,
        context: DeliveryContext,
        registry: ClientRegistry,
        flusher: Flusher,
        conflated_tiers: ConflatedTiers,
        slow_consumers: SlowConsumers,
    ) -> None:
        self._offsets = context.offsets
        self._counters = context.counters
        self._channels = registry.channels
        self._flusher = flusher
        self._conflated_tiers = conflated_tiers
        self._slow_consumers = slow_consumers
        self._sender = CatchUpSender(context, slow_consumers)

    def subscribe(self, client: Client, channel: Channel, interval_ms: int) -> int:
        """Subscribe a client from the head on; returns the granted interval."""
        self._flusher.flush_channel(channel)
        head = channel.state.position.seq
        subscription = client.subscriptions.get(channel.name)
        if subscription is None:
            subscription = client.subscribe(channel.name)
            had_position, keeps_position, needs_status = False, False, False
        else:
            self._slow_consumers.drop(client, channel)
            previous = channel.leave(subscription)
            had_position = True
            keeps_position = previous.last_seq == head and not previous.has_pending
            needs_status = previous.needs_status
        if not keeps_position:
            client.await_reply(subscription, self._offsets.last_serial, had_position=had_position)
        subscription.request(interval_ms)
        granted_ms = self._slow_consumers.interval_ms(channel, subscription)
        self._join(channel, subscription, granted_ms, Lag(head))
        if needs_status or channel.stale_since_ms is not None:
            self.schedule(channel, subscription, Lag(head, needs_status=True))
        return granted_ms

    def unsubscribe(self, client: Client, channel: Channel) -> None:
        """Unsubscribe a connected or parked client; it must be subscribed."""
        self._slow_consumers.drop(client, channel)
        channel.remove(client.subscriptions[channel.name])
        client.unsubscribe(channel.name)

    def schedule(self, channel: Channel, subscription: Subscription, lag: Lag) -> None:
        """Send what this lag lacks at the end of this turn."""
        channel.leave(subscription)
        channel.join(subscription, subscription.interval_ms, lag)
        self._slow_consumers.schedule(subscription.client, channel)

    def reset(self, channel: Channel, reset: Reset) -> None:
        """Restart a channel; disconnect the subscribers that no event can tell of a gap."""
        self._flusher.flush_channel(channel)
        state, previous = channel.state, channel.state.position
        is_new_epoch = reset.head.epoch != previous.epoch
        removed = [(each, channel.leave(each)) for each in channel.subscriptions()]
        self._counters.add("delivery.gaps", len(removed))
        channel.reset(reset)
        for subscription, lag in removed:
            is_unaffected = (
                lag.last_seq == previous.seq and lag.pushed_serial is None and is_new_epoch
            )
            if not state.can_resync and not is_unaffected:
                self._slow_consumers.disconnect(
                    subscription.client, "session messages were lost: reconnect and fetch them"
                )
            lag.restart(reset.head.seq, resync=state.can_resync, snapshot=reset.latest is not None)
            channel.join(subscription, subscription.interval_ms, lag)
            if state.can_resync:
                self._slow_consumers.schedule(subscription.client, channel)
        channel.restarted()

    def resume(self, client: Client, missed: Iterable[tuple[Channel, Subscription, Lag]]) -> None:
        """Add a client that resumes to its tiers, and send what it missed."""
        for channel, subscription, lag in missed:
            interval_ms = self._slow_consumers.interval_ms(channel, subscription)
            # A client at its tier's position goes on with the tier, even behind the head.
            is_behind = lag.has_pending or lag.last_seq != channel.state.position.seq
            if not channel.join(subscription, interval_ms, lag) and is_behind:
                self._slow_consumers.schedule(client, channel)
        self._slow_consumers.serve(client)

    def catch_up(self, client: Client, channel: Channel) -> bool:
        """Send a client what it lacks in a channel, or part of it; False if it is being closed."""
        self._flusher.flush_channel(channel)
        subscription = client.subscriptions[channel.name]
        lag = subscription.lag
        if lag is not None:
            if not self._sender.send(channel, subscription):
                return False
            if lag.last_seq != channel.state.position.seq or lag.pushed_serial is not None:
                return True
        # Without a lag, it has joined its tier meanwhile.
        self._slow_consumers.drop(client, channel)
        self._move(channel, subscription, subscription.interval_ms)
        return True

    def update_tiers(self, client: Client) -> None:
        """Change a client's tiers after its interval was widened or narrowed."""
        for name, subscription in client.subscriptions.items():
            channel = self._channels[name]
            granted_ms = self._slow_consumers.interval_ms(channel, subscription)
            if granted_ms != subscription.interval_ms:
                self._flusher.flush_channel(channel)
                self._move(channel, subscription, granted_ms)

    def _move(self, channel: Channel, subscription: Subscription, interval_ms: int) -> None:
        self._join(channel, subscription, interval_ms, channel.leave(subscription))

    def _join(
        self, channel: Channel, subscription: Subscription, interval_ms: int, lag: Lag
    ) -> None:
        """Add a subscription to a tier, and schedule what it lacks there."""
        if channel.join(subscription, interval_ms, lag):
            return
        if lag.last_seq == channel.state.position.seq and not lag.has_pending:
            return
        if interval_ms:
            self._conflated_tiers.add_interval(channel, interval_ms)
        else:
            self._slow_consumers.schedule(subscription.client, channel)
