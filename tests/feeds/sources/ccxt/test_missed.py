"""The trades that a venue made while its stream was away are fetched page by page."""

import asyncio
from types import SimpleNamespace
from typing import Any

from server.feeds.sources.ccxt.missed import Missed, fetch_missed
from server.feeds.sources.ccxt.options import CcxtOptions

NOW_MS = 1_000_000


def trade(number: int, ts_ms: int) -> dict[str, Any]:
    return {"symbol": "A/B", "id": str(number), "timestamp": ts_ms}


class ScriptedExchange:
    """A venue whose REST has pages of three trades, from a time on."""

    id = "v"

    def __init__(self, *trades: dict[str, Any]) -> None:
        self.since: list[int] = []
        self._trades = trades

    def feature_value(self, *_: object) -> int:
        return 3

    async def fetch_trades(
        self, symbol: str, since: int, limit: int, params: object
    ) -> list[dict[str, Any]]:
        self.since.append(since)
        return [each for each in self._trades if each["timestamp"] >= since][:limit]


async def fetch(
    exchange: Any, last: dict[str, Any], first: dict[str, Any] | None, **options: Any
) -> Missed:
    chosen = CcxtOptions(**options)
    return await fetch_missed(exchange, chosen, asyncio.Semaphore(1), last, first, NOW_MS)


def ids(missed: Missed) -> list[str]:
    return [each["id"] for each in missed.trades]


async def test_pages_are_read_until_the_first_trade_of_the_stream() -> None:
    trades = [trade(number, NOW_MS - 20_000 + 1000 * number) for number in range(1, 12)]
    exchange = ScriptedExchange(*trades)
    missed = await fetch(exchange, trades[1], trades[8])
    assert ids(missed) == [str(number) for number in range(3, 10)]
    assert missed.reason == ""
    assert len(exchange.since) == 4


async def test_trades_beyond_the_bound_are_missing_up_to_the_stream() -> None:
    trades = [trade(number, NOW_MS - 20_000 + 1000 * number) for number in range(1, 12)]
    missed = await fetch(ScriptedExchange(*trades), trades[0], trades[10], fill_trades=5)
    assert ids(missed) == ["2", "3", "4", "5"]
    assert missed == Missed(missed.trades, 6000, "there are more than 5 trades")


async def test_trades_that_are_too_old_are_missing_and_passed_over() -> None:
    old = [trade(number, NOW_MS - 90_000 + number) for number in range(1, 12)]
    new = [trade(number, NOW_MS - 5000 + number) for number in range(12, 15)]
    exchange = ScriptedExchange(*old, *new)
    missed = await fetch(exchange, old[0], new[2], trade_seconds=10)
    assert ids(missed) == ["12", "13", "14"]
    assert missed.missing_ms == new[0]["timestamp"] - old[0]["timestamp"]
    assert exchange.since[1:] == [NOW_MS - 10_000]


async def test_more_trades_of_one_time_than_a_page_are_missing() -> None:
    trades = [trade(number, NOW_MS - 5000) for number in range(1, 9)]
    first = trade(9, NOW_MS - 1000)
    missed = await fetch(ScriptedExchange(*trades, first), trades[0], first)
    assert ids(missed) == ["2", "3"]
    assert missed == Missed(missed.trades, 4000, "its REST does not have all of them")


async def test_venue_whose_rest_has_other_ids_is_not_filled() -> None:
    trades = [trade(number, NOW_MS - 3000 + number) for number in range(1, 4)]
    missed = await fetch(
        ScriptedExchange(*trades), trade(900, NOW_MS - 2998), trade(902, NOW_MS - 2000)
    )
    assert missed == Missed([], 998, "the ids of its REST are not those of its stream")


async def test_slow_venue_is_given_up_with_what_it_sent() -> None:
    trades = [trade(number, NOW_MS - 3000 + 100 * number) for number in range(1, 9)]
    exchange = ScriptedExchange(*trades)
    fetch_page = exchange.fetch_trades

    async def fetch_once(*arguments: Any, **named: Any) -> Any:
        if exchange.since:
            await asyncio.Event().wait()
        return await fetch_page(*arguments, **named)

    slow = SimpleNamespace(id="v", feature_value=exchange.feature_value, fetch_trades=fetch_once)
    missed = await fetch(slow, trades[0], trades[7], timeout_seconds=0.01)
    assert ids(missed) == ["2", "3"]
    assert missed == Missed(missed.trades, 500, "it took longer than 0.01 s")
