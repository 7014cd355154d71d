"""Runs a source's feed into a market, and cuts it off at any moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from server.core.log.entries import Position
from server.feeds import open_feeds
from server.ports import FeedOptions
from server.services.market.feed_publisher import FeedPublisher
from server.tasks import cancel_and_wait
from tests.kit.patience import until
from tests.kit.rigs.market import MarketRig


class CutOff(Exception):
    """The server is killed."""


class CutPublisher(FeedPublisher):
    """Publishes so many messages, and is cut off after the last one."""

    def __init__(self, market: MarketRig, name: str, count: int) -> None:
        super().__init__(market.publishing, name)
        self._count = count

    async def publish(self, topic: str, data: Mapping[str, object], **fields: Any) -> Position:
        position = await super().publish(topic, data, **fields)
        if self.published == self._count:
            raise CutOff
        return position


class SourceRig:
    """A market that outlives the runs of a feed, as a broker outlives a server."""

    def __init__(self, market: MarketRig, source: str, **options: object) -> None:
        self.market = market
        self._source = source
        self._options = options

    def start(self, publisher: FeedPublisher | None = None) -> "asyncio.Task[None]":
        """Run the feed until its task is cancelled."""
        options = FeedOptions(self.market.clock)
        [feed] = open_feeds([self._source], options, {self._source: self._options}).values()
        publisher = publisher or FeedPublisher(self.market.publishing, self._source)
        return asyncio.create_task(feed.run(publisher))

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the feed until the block ends, wherever it is then."""
        task = self.start()
        try:
            yield
        finally:
            assert not task.done(), "the feed has ended"
            await cancel_and_wait(task)

    async def run_until(self, count: int, topic: str = "TRADES:A") -> None:
        """Run the feed until so many messages are published."""
        async with self.run():
            await self.until_published(count, topic)

    async def until_published(self, count: int, topic: str = "TRADES:A") -> None:
        """Wait until so many messages are published."""
        await until(lambda: self.published(topic) >= count)

    async def cut_off_often(self, rounds: int) -> None:
        """Run the feed again and again, and cut it off right after a message is published.

        The source then does not know that the message is published.
        """
        for count in range(1, rounds + 1):
            publisher = CutPublisher(self.market, self._source, count)
            with contextlib.suppress(CutOff):
                await self.start(publisher)

    def published(self, topic: str) -> int:
        """The number of messages of a topic."""
        return self.market.broker.head_of(topic).seq

    async def numbers(self, topic: str = "TRADES:A") -> list[int]:
        """The ids of all trades of a topic, in their order."""
        entries = await self.market.broker.before(topic, None, 100_000)
        return [int(orjson.loads(each.data)["trades"][0]["id"]) for each in entries]


def trade(number: int) -> dict[str, object]:
    """The data of one trade."""
    deal = {"id": str(number), "price": "1", "qty": "1", "side": "buy", "ts": number}
    return {"trades": [deal]}


async def source_rig(source: str, **options: object) -> SourceRig:
    return SourceRig(await MarketRig.create(), source, **options)
