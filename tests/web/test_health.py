"""Tests the health endpoints."""

import asyncio

from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from floorcast.server import FeedEvent, Handlers
from server.app import SERVER, create_app
from server.ports import Publishing
from server.settings import load_settings
from tests.kit.patience import until

SECRET = "a secret for tests that is long enough to be one"
PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}


class SwitchedFeed:
    """Publishes once and fails, as the test says."""

    def __init__(self) -> None:
        self.may_publish = asyncio.Event()
        self.must_fail = asyncio.Event()

    async def run(self, publishing: Publishing) -> None:
        await self.may_publish.wait()
        await publishing.publish("PRICE:A", PRICE)
        await self.must_fail.wait()
        self.may_publish.clear()
        raise ConnectionError("the exchange is down")


def app_with(feed: SwitchedFeed, *, required: bool, handlers: Handlers) -> web.Application:
    settings = load_settings(flags={"auth.secret": SECRET, "feed.required": required})
    return create_app(settings, feed=feed, handlers=handlers)


async def test_required_feed_decides_about_readiness(aiohttp_client: AiohttpClient) -> None:
    feed, events = SwitchedFeed(), list[FeedEvent]()
    handlers = Handlers(feed_live=events.append, feed_stale=events.append)
    app = app_with(feed, required=True, handlers=handlers)
    client = await aiohttp_client(app)
    assert (await client.get("/health/ready")).status == 503
    assert (await client.get("/health/live")).status == 200
    feed.may_publish.set()
    await until(lambda: app[SERVER].is_ready)
    assert (await client.get("/health/ready")).status == 200
    feed.must_fail.set()
    await until(lambda: not app[SERVER].is_ready)
    assert (await client.get("/health/ready")).status == 503
    await until(lambda: len(events) == 2)
    assert [each.type for each in events] == ["feed.live", "feed.stale"]


async def test_feed_that_is_not_required_leaves_the_server_ready(
    aiohttp_client: AiohttpClient,
) -> None:
    feed = SwitchedFeed()
    app = app_with(feed, required=False, handlers=Handlers())
    client = await aiohttp_client(app)
    assert (await client.get("/health/ready")).status == 200
    feed.may_publish.set()
    feed.must_fail.set()
    await until(lambda: app[SERVER].tasks.failing == {"floorcast-feed-SwitchedFeed"})
    assert (await client.get("/health/ready")).status == 200
