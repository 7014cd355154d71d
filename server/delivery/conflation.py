"""Sends merged updates to clients that subscribed with an interval."""

from dataclasses import replace

from client_sdk.contract import INTERVALS_MS
from server.core.log.backlog import Lag
from server.core.recovery.offsets import plain_frame
from server.core.wire.frames import deflate_text_frames
from server.delivery.catch_up import CatchUpSender
from server.delivery.channel import Channel
from server.delivery.clients import Subscription
from server.delivery.context import DeliveryContext
from server.delivery.slow_consumers import SlowConsumers
from server.delivery.tiers import Tier


class ConflatedTiers:
    """Flushes conflated tiers on interval boundaries; tracks which channels are due."""

    def __init__(self, context: DeliveryContext, slow_consumers: SlowConsumers) -> None:
        self._context = context
        self._slow_consumers = slow_consumers
        self._sender = CatchUpSender(context, slow_consumers)
        self._boundaries: dict[int, int] = {}
        self._due: dict[int, dict[Channel, None]] = {each: {} for each in INTERVALS_MS if each}

    def add(self, channel: Channel) -> None:
        """Flush all conflated tiers of a channel, each at its next boundary."""
        for interval_ms in channel.conflated:
            self._due[interval_ms][channel] = None

    def add_interval(self, channel: Channel, interval_ms: int) -> None:
        """Flush one tier of a channel at its next boundary."""
        self._due[interval_ms][channel] = None

    def forget(self, channel: Channel) -> None:
        """Drop a closed channel."""
        for due in self._due.values():
            due.pop(channel, None)

    def tick(self) -> None:
        """Flush the intervals that have reached a boundary."""
        now_ms = int(self._context.clock.monotonic() * 1000)
        for interval_ms, due in self._due.items():
            boundary = now_ms // interval_ms
            if self._boundaries.get(interval_ms) != boundary:
                self._boundaries[interval_ms] = boundary
                channels, self._due[interval_ms] = due, {}
                with self._context.deferred_close:
                    for channel in channels:
                        tier = channel.conflated.get(interval_ms)
                        if tier is not None:
                            self._flush_tier(channel, tier)

    def _flush_tier(self, channel: Channel, tier: Tier) -> None:
        head = channel.state.position.seq
        if tier.last_seq != head:
            self._send_merged(channel, tier)
            tier.advance(head)
        for subscription in tier.unsynced():
            client = subscription.client
            if client.link.clogged:
                self._slow_consumers.add(client)
                self.add_interval(channel, tier.interval_ms)
            elif self._sender.send(channel, subscription):
                # Its backlog may hold the channel too: do not send it twice.
                self._slow_consumers.drop(client, channel)
                if not channel.join(subscription, tier.interval_ms, channel.leave(subscription)):
                    self.add_interval(channel, tier.interval_ms)
        if not len(tier):
            channel.drop_tier(tier.interval_ms)

    def _send_merged(self, channel: Channel, tier: Tier) -> None:
        if not tier.groups[0] and not tier.groups[1]:
            return
        tier_lag = Lag(tier.last_seq, tier.oldest_ms)
        offsets, now_ms = self._context.offsets, int(self._context.clock.time() * 1000)
        max_bytes = self._context.config.max_batch_bytes
        caught_up = channel.state.catch_up(tier_lag, now_ms, max_bytes)
        events = caught_up.events
        serial = offsets.allocate(len(events))
        tier.record_batch(offsets.last_serial, channel.state.position.seq)
        traffic, clients = self._context.traffic, len(tier.groups[0]) + len(tier.groups[1])
        if caught_up.merged > 1:
            self._context.counters.add("delivery.conflated", (caught_up.merged - 1) * clients)
        if tier.oldest_ms is not None:
            age_seconds = (now_ms - tier.oldest_ms) / 1000
            traffic.ages(channel.state.label, tier.interval_ms).observe(age_seconds, clients)
        for numbered, group in enumerate(tier.groups):
            if not group:
                continue
            frames = b"".join(
                offsets.frame(event, serial + index) if numbered else plain_frame(event)
                for index, event in enumerate(events)
            )
            traffic.count(len(events) * len(group), len(group), len(frames) * len(group))
            deflated: bytes | None = None
            clogged: list[Subscription] = []
            for link, subscription in group.items():
                if link.clogged:
                    clogged.append(subscription)
                    continue
                if link.deflates:
                    deflated = deflated or deflate_text_frames(frames)
                    self._context.writes.write(link, deflated)
                else:
                    self._context.writes.write(link, frames)
            for subscription in clogged:
                channel.fall_behind(subscription, serial, replace(tier_lag))
