"""Sends merged updates to clients that subscribed with an interval."""

from client_sdk.contract import INTERVALS_MS
from server.core.log.backlog import Lag
from server.core.recovery.offsets import Offsets, plain_frame
from server.core.wire.frames import deflate_text_frames
from server.delivery.channel import Channel, Tier
from server.delivery.deferred_close import DeferredClose
from server.delivery.slow_consumers import SlowConsumers
from server.ports import Clock


class ConflatedTiers:
    """Flushes conflated tiers on interval boundaries; tracks which channels are due."""

    def __init__(
        self,
        *,
        clock: Clock,
        offsets: Offsets,
        deferred_close: DeferredClose,
        slow_consumers: SlowConsumers,
        max_batch_bytes: int,
    ) -> None:
        self._clock = clock
        self._offsets = offsets
        self._deferred_close = deferred_close
        self._slow_consumers = slow_consumers
        self._max_batch_bytes = max_batch_bytes
        self._boundaries: dict[int, int] = {}
        self.due: dict[int, dict[Channel, None]] = {each: {} for each in INTERVALS_MS if each}

    def forget(self, channel: Channel) -> None:
        """Drop a closed channel."""
        for due in self.due.values():
            due.pop(channel, None)

    def tick(self) -> None:
        """Flush the intervals that have reached a boundary, and check slow consumers."""
        now_ms = int(self._clock.monotonic() * 1000)
        for interval_ms, due in self.due.items():
            boundary = now_ms // interval_ms
            if self._boundaries.get(interval_ms) != boundary:
                self._boundaries[interval_ms] = boundary
                channels, self.due[interval_ms] = due, {}
                with self._deferred_close:
                    for channel in channels:
                        tier = channel.conflated.get(interval_ms)
                        if tier is not None:
                            self._flush_tier(channel, tier)
        self._slow_consumers.tick()

    def _flush_tier(self, channel: Channel, tier: Tier) -> None:
        head = channel.state.position.seq
        if tier.last_seq != head:
            self._send_merged(channel, tier)
            tier.last_seq, tier.oldest_ms = head, None
        for client, lag in tuple(tier.unsynced.items()):
            if client.link.clogged:
                self._slow_consumers.add(client)
                self.due[tier.interval_ms][channel] = None
            elif self._slow_consumers.send_catch_up(client, channel, lag):
                # Its backlog may hold the same lag: do not send it twice.
                if client.backlog is not None:
                    client.backlog.drop(channel)
                del tier.unsynced[client]
                channel.sync(tier, client)
        if not len(tier):
            del channel.conflated[tier.interval_ms]

    def _send_merged(self, channel: Channel, tier: Tier) -> None:
        groups, tier.groups = tier.groups, ({}, {})
        if not groups[0] and not groups[1]:
            return
        tier_lag = Lag(tier.last_seq, tier.oldest_ms)
        events = channel.state.catch_up(
            tier_lag, int(self._clock.time() * 1000), self._max_batch_bytes
        ).events
        serial = self._offsets.allocate(len(events))
        tier.batches.append(self._offsets.last_serial, channel.state.position.seq)
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
                    tier.unsynced[client] = Lag(tier_lag.last_seq, tier_lag.oldest_ms)
                    client.add_checkpoint(channel, serial, tier_lag.last_seq)
                    continue
                if link.deflates:
                    deflated = deflated or deflate_text_frames(frames)
                if client.send(frames, deflated):
                    synced[link] = client
