"""Sends a client what it lacks in one channel."""

from server.core.log.backlog import Lag
from server.core.recovery.push_log import LoggedPush
from server.delivery.channel import Channel
from server.delivery.clients import Subscription
from server.delivery.context import DeliveryContext
from server.delivery.slow_consumers import SlowConsumers


class CatchUpSender:
    """Sends entries, pushes, snapshots and status to subscriptions that have a lag."""

    def __init__(self, context: DeliveryContext, slow_consumers: SlowConsumers) -> None:
        self._context = context
        self._offsets = context.offsets
        self._slow_consumers = slow_consumers

    def send(self, channel: Channel, subscription: Subscription) -> bool:
        """Send what a subscription lacks, or part of it; False if its client is being closed."""
        lag = subscription.lag
        assert lag is not None
        pushes: list[LoggedPush] | None = []
        if lag.pushed_serial is not None:
            pushes = channel.pushes_after(lag.pushed_serial, subscription.client.id)
        if pushes is None:
            self._slow_consumers.disconnect(subscription.client)
            return False
        if not pushes:
            lag.pushes_sent(None)
        elif pushes[0].seq <= lag.last_seq:
            return self._resend_pushes(subscription, lag, pushes)
        until_seq = pushes[0].seq if pushes else None
        return self._send_entries(channel, subscription, lag, until_seq)

    def _resend_pushes(
        self, subscription: Subscription, lag: Lag, pushes: list[LoggedPush]
    ) -> bool:
        """Resend the pushes that precede the next entry the client lacks."""
        for push in pushes:
            if push.seq > lag.last_seq:
                break
            frames, serial = subscription.client.encode_events([push.event], self._offsets)
            if not subscription.client.send(frames):
                return False
            lag.pushes_sent(push.serial)
            subscription.record(serial, lag.last_seq)
        return True

    def _send_entries(
        self, channel: Channel, subscription: Subscription, lag: Lag, until_seq: int | None
    ) -> bool:
        client, state = subscription.client, channel.state
        now_ms = int(self._context.clock.time() * 1000)
        max_bytes = self._context.config.max_batch_bytes
        caught_up = state.catch_up(lag, now_ms, max_bytes, until_seq=until_seq)
        if caught_up.is_lost:
            self._slow_consumers.disconnect(client)
            return False
        resync = state.resync() if lag.needs_resync else None
        # No checkpoint: without the message after it, the event is worthless.
        if resync and not client.send(client.encode_events([resync], self._offsets)[0]):
            return False
        count = len(caught_up.events)
        status = channel.status() if lag.needs_status else None
        events = caught_up.events if status is None else [*caught_up.events, status]
        lag.snapshot_taken()
        if events:
            frames, serial = client.encode_events(events, self._offsets)
            if not client.send(frames):
                return False
            self._context.traffic.count(count, 1, len(frames))
            if count:
                steps = 0 if caught_up.is_snapshot or state.merges else count
                base = lag.last_seq if steps else caught_up.reached
                subscription.record(serial, base, steps=steps)
            lag.status_sent()
            if status is not None:
                subscription.record(serial + count, caught_up.reached)
        if caught_up.merged > 1:
            self._context.counters.add("delivery.merged", caught_up.merged - 1)
            client.count_merged(caught_up.merged - 1)
        if caught_up.is_snapshot:
            self._context.counters.add("delivery.snapshots")
        lag.reach(caught_up.reached)
        return True
