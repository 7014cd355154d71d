"""The topics that somebody listens to, so that a feed fetches no others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from itertools import chain, islice

from server.core.market.instruments import InstrumentTable, matches
from server.core.market.patterns import TopicPattern
from server.core.market.subscriptions import Subscriptions
from server.ports import Clock
from server.services.market.patterns import Patterns

# How often a feed asks, and so how late it notices a change.
POLL_SECONDS = 0.5
# In one answer; further topics of the node do not count.
_MAX_NAMES = 50_000


class LocalDemand:
    """The topics and patterns that connections of this node are subscribed to.

    It reads what the subscriptions know already, and only if it is asked: a subscription costs
    nothing more.
    """

    def __init__(self, subscriptions: Subscriptions, patterns: Patterns) -> None:
        self._subscriptions = subscriptions
        self._patterns = patterns
        self._names: frozenset[str] = frozenset()
        self._version = 0

    def names(self) -> tuple[int, frozenset[str]]:
        """Topics such as `PRICE:A` and patterns such as `PRICE:*`; a view stands as its source.

        Their version rises when they change.
        """
        names = frozenset(islice(chain(self._pattern_names(), self._topic_names()), _MAX_NAMES))
        if names != self._names:
            self._names = names
            self._version += 1
        return self._version, names

    def _topic_names(self) -> Iterator[str]:
        for topic in self._subscriptions.public_topics():
            yield topic.name if topic.view is None else topic.source.name

    def _pattern_names(self) -> Iterator[str]:
        for stream, match in self._patterns.distinct():
            yield f"{stream}:{match}"


class Demand:
    """Follows what is wanted on all nodes, for each feed that asks."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[frozenset[str]]],
        instruments: InstrumentTable,
        clock: Clock,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        # The names of `LocalDemand`, of all nodes.
        self._ask = ask
        self._instruments = instruments
        self._clock = clock
        self._sleep = sleep

    async def follow(
        self, symbols: Collection[str] | None, grace_seconds: float
    ) -> AsyncIterator[frozenset[str]]:
        """Yield the wanted topics, at once and after each change; see `Publishing.demand`."""
        own = None if symbols is None else frozenset(symbols)
        wanted_at: dict[str, float] = {}
        names: frozenset[str] | None = None
        topics: frozenset[str] | None = None
        listed = -1
        while True:
            asked = await self._ask()
            now = self._clock.monotonic()
            wanted_at.update(dict.fromkeys(asked, now))
            for name in wanted_at.keys() - asked:
                if now - wanted_at[name] >= grace_seconds:
                    del wanted_at[name]
            if names != wanted_at.keys() or listed != self._instruments.version:
                names, listed = frozenset(wanted_at), self._instruments.version
                found = frozenset([each async for each in self._expand(names, own)])
                if found != topics:
                    topics = found
                    yield topics
            await self._sleep(POLL_SECONDS)

    async def _expand(
        self, names: Collection[str], own: frozenset[str] | None
    ) -> AsyncIterator[str]:
        """The topics that names stand for, of one's own symbols if there are such."""
        for name in names:
            stream, _, symbol = name.partition(":")
            if TopicPattern.is_one(name):
                for part in self._search(symbol, own):
                    for each in part:
                        yield f"{stream}:{each}"
                    # Clients choose how many patterns there are.
                    await asyncio.sleep(0)
            elif own is None or symbol in own:
                yield name

    def _search(self, match: str, own: frozenset[str] | None) -> Iterator[list[str]]:
        if own is not None:
            yield [each for each in own if matches(match, each)]
            return
        for part in self._instruments.search(match):
            yield [each.symbol for each in part]
