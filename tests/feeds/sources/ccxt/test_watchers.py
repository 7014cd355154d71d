"""The feed `ccxt` keeps ccxt's calls going."""

import asyncio
import importlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from client_sdk.contract import Stream
from server.feeds import FeedError
from server.feeds.sources.ccxt.markets import choose_markets
from server.feeds.sources.ccxt.options import CcxtOptions
from server.feeds.sources.ccxt.updates import Updates
from tests.feeds.sources.ccxt.rig import NEEDS_CCXT
from tests.kit.clock import ManualClock
from tests.kit.patience import until

pytestmark = [pytest.mark.sockets, NEEDS_CCXT]


class ScriptedExchange:
    """Fails its first call, and then waits."""

    def __init__(self, failure: Exception) -> None:
        self.has = {"watchOrderBook": True}
        self.orderbooks: dict[str, object] = {}
        self.calls = 0
        self._failure = failure

    async def watch_order_book(self, symbol: str, **_: object) -> None:
        self.calls += 1
        if self.calls == 1:
            raise self._failure
        await asyncio.Event().wait()


def watch(exchange: ScriptedExchange, updates: Updates, lost: list[str]) -> Any:
    def on_lost(markets: Sequence[Any], reason: str) -> None:
        lost.extend(each.symbol for each in markets)

    watchers = importlib.import_module("server.feeds.sources.ccxt.watchers")
    options = CcxtOptions(streams=(Stream.ORDERBOOK,))
    return watchers.Watchers("v", "v", exchange, options, updates, ManualClock(), on_lost)


def one_market() -> list[Any]:
    return list(choose_markets("v", {"A/B": {"symbol": "A/B"}}, ("A/B",), 4).values())


async def test_book_begins_anew_after_an_error_that_names_no_symbol() -> None:
    ccxt = importlib.import_module("ccxt")
    exchange, lost = ScriptedExchange(ccxt.ChecksumError("book 17")), list[str]()
    watchers = watch(exchange, Updates(), lost)
    await watchers.want(Stream.ORDERBOOK, one_market())
    await until(lambda: exchange.calls == 2)
    assert lost == ["A/B"]
    await watchers.stop()


async def test_other_error_of_a_call_fails_the_feed() -> None:
    updates, lost = Updates(), list[str]()
    watchers = watch(ScriptedExchange(KeyError("price")), updates, lost)
    await watchers.want(Stream.ORDERBOOK, one_market())
    with pytest.raises(KeyError, match="price"):
        await updates.wait()
    await watchers.stop()


def test_stream_that_the_venue_lacks_is_refused() -> None:
    with pytest.raises(FeedError, match="ccxt cannot watch ORDERBOOK at v"):
        watch(SimpleNamespace(has={}), Updates(), [])  # type: ignore[arg-type]
