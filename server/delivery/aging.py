"""Drops the entries that channels keep for catching up, once they are too old."""

from collections.abc import Mapping

from server.delivery.channel import Channel
from server.delivery.context import DeliveryContext

_ROUND_SECONDS = 10.0
# In one tick: a server can have 100,000 channels, and others wait.
_CHANNELS_PER_TICK = 1000


class BacklogAging:
    """Visits every channel about each ten seconds, a part of them in each tick."""

    def __init__(self, context: DeliveryContext, channels: Mapping[str, Channel]) -> None:
        self._clock = context.clock
        self._channels = channels
        self._next_round_at = 0.0
        self._remaining: list[Channel] = []

    def tick(self) -> None:
        """Drop what has become too old in the next channels."""
        now = self._clock.monotonic()
        if not self._remaining:
            if now < self._next_round_at:
                return
            self._next_round_at = now + _ROUND_SECONDS
            self._remaining = list(self._channels.values())
        now_ms = int(self._clock.time() * 1000)
        for channel in self._remaining[-_CHANNELS_PER_TICK:]:
            channel.state.expire(now_ms)
        del self._remaining[-_CHANNELS_PER_TICK:]
