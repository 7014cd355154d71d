"""Bounds the topics that this node publishes: in total, by org and by publisher."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from server.core.errors import LimitError
from server.core.limits.shares import Owner, Quota, ShareLimits, Shares, Surplus
from server.ports import Broker

# What a topic costs besides its newest state, whose size is rounded: it seldom changes then.
_TOPIC_BYTES = 1024
_ROUND_BYTES = 256
# How many silent topics are tried for one that no node watches.
_MAX_TRIED = 16
# A topic becomes its owner's newest at most so often: the order decides only about silent topics.
_TOUCH_MS = 1000


@dataclass(frozen=True, slots=True)
class TopicSharesConfig:
    """The limits, and after which silence a topic that nobody watches may be evicted."""

    limits: ShareLimits = field(
        default_factory=lambda: ShareLimits(Quota(100_000), Quota(), Quota())
    )
    silent_seconds: float = 300.0


@dataclass(slots=True)
class _Topic:
    owner: Owner
    size_bytes: int
    ts_ms: int
    # When it became its owner's newest.
    touched_ms: int


class TopicShares:
    """The topics that this node has published, each held by its last publisher."""

    def __init__(
        self, config: TopicSharesConfig, broker: Broker, on_evicted: Callable[[str], None]
    ) -> None:
        self._silent_ms = int(config.silent_seconds * 1000)
        self._broker = broker
        self._on_evicted = on_evicted
        self._topics: dict[str, _Topic] = {}
        self._shares: Shares[str] = Shares(config.limits)
        # Evicted topics, and publishes refused for a limit.
        self.evicted_count = 0
        self.refused_count = 0

    def __len__(self) -> int:
        return len(self._topics)

    def __contains__(self, channel: object) -> bool:
        return channel in self._topics

    def __iter__(self) -> Iterator[str]:
        """The channels of the topics; publish nothing while you iterate."""
        return iter(self._topics)

    async def admit(self, channel: str, owner: Owner, state_bytes: int, ts_ms: int) -> None:
        """Count a topic with this state for its publisher, before it is published.

        Evicts silent topics that nobody watches, the oldest first, to make room. Raises
        `LimitError` if there are none, and counts the topic as before.
        """
        if self.renew(channel, owner, state_bytes, ts_ms):
            return
        known = self._topics.get(channel)
        topic = _Topic(owner, _rounded(state_bytes), ts_ms, ts_ms)
        grown = self._set(channel, topic)
        try:
            if grown:
                await self._make_room(owner, ts_ms)
            if known is None or known.owner != owner:
                await self._broker.add_topic(channel, owner)
        except BaseException as error:
            self.refused_count += isinstance(error, LimitError)
            if self._topics.get(channel) is topic:
                self._set(channel, known)
            raise

    def renew(self, channel: str, owner: Owner, state_bytes: int, ts_ms: int) -> bool:
        """Count a topic that its owner publishes again, as large as before; False if it is not.

        Then you must `admit` it.
        """
        known = self._topics.get(channel)
        if (
            known is None
            or known.owner != owner
            or known.size_bytes != _TOPIC_BYTES + -(-state_bytes // _ROUND_BYTES) * _ROUND_BYTES
        ):
            return False
        known.ts_ms = ts_ms
        if ts_ms - known.touched_ms >= _TOUCH_MS:
            known.touched_ms = ts_ms
            self._shares.touch(owner, channel)
        return True

    def resize(self, channel: str, state_bytes: int) -> None:
        """Set the size of a topic's state; a no-op for an unknown topic."""
        topic = self._topics.get(channel)
        if topic is not None:
            topic.size_bytes = _rounded(state_bytes)
            self._shares.put(topic.owner, channel, topic.size_bytes)

    def remove(self, channel: str) -> None:
        """Count a topic no longer; a no-op for an unknown one."""
        if channel in self._topics:
            self._set(channel, None)

    def _set(self, channel: str, topic: _Topic | None) -> bool:
        """Count a topic, or no longer if None; returns if its publisher's share has grown."""
        previous = self._topics.get(channel)
        if previous is not None and (topic is None or topic.owner != previous.owner):
            self._shares.remove(previous.owner, channel)
        if topic is None:
            del self._topics[channel]
            return False
        self._topics[channel] = topic
        return self._shares.put(topic.owner, channel, topic.size_bytes)

    async def _make_room(self, owner: Owner, now_ms: int) -> None:
        while (surplus := self._shares.surplus(owner)) is not None:
            if not await self._evict_one(surplus, now_ms):
                raise surplus.error("topics")

    async def _evict_one(self, surplus: Surplus[str], now_ms: int) -> bool:
        silent_since_ms = now_ms - self._silent_ms
        for channel in list(islice(surplus.names, _MAX_TRIED)):
            topic = self._topics.get(channel)
            if topic is None:
                # Evicted by another publish during the await.
                return True
            if topic.ts_ms > silent_since_ms:
                return False
            if await self._broker.forget(channel, silent_since_ms=silent_since_ms):
                if self._topics.get(channel) is topic and topic.ts_ms <= silent_since_ms:
                    self._set(channel, None)
                self.evicted_count += 1
                self._on_evicted(channel)
                return True
            if self._topics.get(channel) is topic:
                # A node watches it, or has published to it: the others come first.
                topic.ts_ms = now_ms
                self._shares.touch(topic.owner, channel)
        return False


def _rounded(state_bytes: int) -> int:
    return _TOPIC_BYTES + -(-state_bytes // _ROUND_BYTES) * _ROUND_BYTES
