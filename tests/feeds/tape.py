"""Test doubles for the `Publishing` port and for sleeping."""

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass

from server.core.log.entries import Position
from tests.kit.clock import ManualClock


@dataclass(frozen=True, slots=True)
class Published:
    """One published message."""

    topic: str
    data: Mapping[str, object]
    kind: str = "update"
    user: str | None = None
    org: str = "default"
    source_ts: int | None = None
    identifier: str | None = None


class PublishRecorder:
    """Records published messages, and cancels the feed after `length` messages."""

    def __init__(self, length: float = math.inf) -> None:
        self.messages: list[Published] = []
        self.instruments: dict[str, dict[str, object]] = {}
        self.stale: list[str] = []
        self._length = length
        # What a feed that follows `demand` gets, one after the other.
        self.wanted: list[frozenset[str]] = []

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
        source_ts: int | None = None,
        identifier: str | None = None,
    ) -> Position:
        if len(self.messages) >= self._length:
            raise asyncio.CancelledError
        self.messages.append(Published(topic, data, kind, user, org, source_ts, identifier))
        return Position("e", len(self.messages))

    async def publish_book(
        self,
        symbol: str,
        bids: Iterable[tuple[str, str]],
        asks: Iterable[tuple[str, str]],
        *,
        source_ts: int | None = None,
    ) -> Position | None:
        book = {"bids": list(bids), "asks": list(asks)}
        return await self.publish(f"ORDERBOOK:{symbol}", book, kind="whole", source_ts=source_ts)

    async def set_instrument(self, symbol: str, fields: Mapping[str, object]) -> None:
        self.instruments.setdefault(symbol, {}).update(fields)

    async def demand(
        self, symbols: Collection[str] | None = None, *, grace_seconds: float = 10.0
    ) -> AsyncIterator[frozenset[str]]:
        for topics in self.wanted:
            yield topics
        await asyncio.Event().wait()

    async def latest(self, topic: str) -> Mapping[str, object] | None:
        return None

    def set_stale(self, topics: Collection[str], reason: str) -> None:
        self.stale.extend(topics)

    def of_topic(self, topic: str) -> list[Published]:
        """The messages of one topic or one stream."""
        return [line for line in self.messages if topic in (line.topic, line.topic.split(":")[0])]


class FakeSleep:
    """Advances the clock instead of sleeping, and records each sleep."""

    def __init__(self, clock: ManualClock) -> None:
        self.sleeps: list[float] = []
        self._clock = clock

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self._clock.advance(seconds)
