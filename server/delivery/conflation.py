"""Serves those who asked for less than every message: each pace has its moments."""

from client_sdk.contract import INTERVALS_MS
from server.core.log.backlog import Lag
from server.core.recovery.offsets import Offsets, plain_frame
from server.core.wire.frames import deflate_text_frames
from server.delivery.channel import Channel, Tier
from server.delivery.deferred_close import Endings
from server.delivery.slow_consumers import Laggards
from server.ports import Clock


class Paces:
    """The paced tiers, and in which topics something is due for each pace."""

    def __init__(
        self,
        *,
        clock: Clock,
        offsets: Offsets,
        endings: Endings,
        laggards: Laggards,
        piece_bytes: int,
    ) -> None:
        self._clock = clock
        self._offsets = offsets
        self._endings = endings
        self._laggards = laggards
        self._piece_bytes = piece_bytes
        self._boundaries: dict[int, int] = {}
        self.due: dict[int, dict[Channel, None]] = {each: {} for each in INTERVALS_MS if each}

    def forget(self, channel: Channel) -> None:
        """Nobody listens to the topic any more."""
        for due in self.due.values():
            due.pop(channel, None)

    def tick(self) -> None:
        """Serve the paces whose moment has come, and look after who lags."""
        now_ms = int(self._clock.monotonic() * 1000)
        for interval_ms, due in self.due.items():
            boundary = now_ms // interval_ms
            if self._boundaries.get(interval_ms) != boundary:
                self._boundaries[interval_ms] = boundary
                waiting, self.due[interval_ms] = due, {}
                with self._endings:
                    for channel in waiting:
                        tier = channel.paced.get(interval_ms)
                        if tier is not None:
                            self._flush_paced(channel, tier)
        self._laggards.tick()

    def _flush_paced(self, channel: Channel, tier: Tier) -> None:
        head = channel.view.position.seq
        if tier.last != head:
            self._send_round(channel, tier)
            tier.last, tier.oldest_ms = head, None
        for client, lag in tuple(tier.odd.items()):
            if client.link.clogged:
                self._laggards.watch(client)
                self.due[tier.interval_ms][channel] = None
            elif self._laggards.send_missed(client, channel, lag):
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
