"""Reading from a time or some messages back, patterns, views, instruments and candles."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from client_sdk import Gap, PriceMessage, SyncClient
from client_sdk.contract import FeedState, InstrumentStatus
from tests.kit.clients.sdk import abort_connections, client_of
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.in_process import PRICE, RunningServer, running
from tests.sdk.market.test_market import number, numbers, price, trade


async def take(stream: Any, count: int) -> list[Any]:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        return [await anext(stream) for _ in range(count)]


async def test_stream_begins_some_messages_back_and_goes_on() -> None:
    async with running() as node, client_of(node) as client:
        for each in range(1, 6):
            await trade(node, each)
        async with client.market.trades("A", last=3) as trades:
            await trade(node, 6)
            assert await numbers(trades, 4) == [3, 4, 5, 6]
            # Another reader of the same topic has a start of its own.
            async with client.market.stream("TRADES:A", last=1) as other:
                assert await numbers(other, 1) == [6]
            await trade(node, 7)
            assert await numbers(trades, 1) == [7]


async def test_stream_begins_at_a_time() -> None:
    async with running() as node, client_of(node) as client:
        for each in range(1, 4):
            await trade(node, each)
        start = datetime.fromtimestamp(0, UTC)
        async with client.market.trades("A", since=start) as trades:
            assert await numbers(trades, 3) == [1, 2, 3]
        async with client.market.trades("A", since=datetime(2200, 1, 1, tzinfo=UTC)) as trades:
            await trade(node, 4)
            assert await numbers(trades, 1) == [4]


async def test_time_before_the_history_shows_a_gap() -> None:
    async with running({"history.messages": 2}) as node, client_of(node) as client:
        for each in range(1, 6):
            await trade(node, each)
        start = datetime.fromtimestamp(0, UTC)
        async with client.market.stream("TRADES:A", since=start, last=1) as stream:
            gap, newest = await take(stream, 2)
            assert isinstance(gap, Gap)
            assert (gap.missed_from, gap.missed_to) == (1, 4)
            assert number(newest) == 5


async def test_last_is_bounded() -> None:
    async with running() as node, client_of(node) as client:
        with pytest.raises(ValueError, match="from 0 to 1000"):
            client.market.trades("A", last=1001)


async def test_checkpoint_counts_what_was_read() -> None:
    async with running() as node, client_of(node) as client:
        async with client.market.trades("A") as trades:
            for each in range(1, 5):
                await trade(node, each)
            await numbers(trades, 2)
            await until(lambda: trades.position("TRADES:A") is not None)
            checkpoint = trades.checkpoint
        assert checkpoint["TRADES:A"].seq == 2
        async with client.market.trades("A", since=checkpoint) as trades:
            assert trades.checkpoint == checkpoint
            assert await numbers(trades, 2) == [3, 4]


async def test_pattern_reads_symbols_of_now_and_later() -> None:
    async with running() as node, client_of(node) as client:
        await price(node, 1, "BTCUSDT")
        await price(node, 1, "ETHUSDT")
        await until(lambda: len(node.server.market.instruments.table) == 2)
        async with client.market.stream("PRICE:BTC*") as stream:
            assert [each.symbol for each in await take(stream, 1)] == ["BTCUSDT"]
            await price(node, 2, "BTCEUR")
            (later,) = await take(stream, 1)
            assert (later.symbol, later.data.last) == ("BTCEUR", "2")
            await price(node, 3, "BTCEUR")
            await price(node, 3, "BTCUSDT")
            assert {each.symbol for each in await take(stream, 2)} == {"BTCEUR", "BTCUSDT"}
        await until(lambda: not node.server.delivery.hub.channels())


async def test_pattern_survives_a_reconnect() -> None:
    async with running() as node, client_of(node) as client:
        await price(node, 1, "A1")
        await until(lambda: len(node.server.market.instruments.table) == 1)
        async with client.market.stream("PRICE:A*") as stream:
            await take(stream, 1)
            abort_connections(node)
            await price(node, 2, "A1")
            await price(node, 2, "A2")
            found: dict[str, str] = {}
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while found != {"A1": "2", "A2": "2"}:
                    item = await anext(stream)
                    assert isinstance(item, PriceMessage)
                    found[item.symbol] = item.data.last


async def test_pattern_of_trades_misses_none_after_the_first() -> None:
    async with (
        running() as node,
        client_of(node) as client,
        client.market.stream("TRADES:*") as stream,
    ):
        await trade(node, 1, "A")
        assert await numbers(stream, 1) == [1]
        for each in range(2, 6):
            await trade(node, each, "A")
        assert await numbers(stream, 4) == [2, 3, 4, 5]


async def publish_book(node: RunningServer) -> None:
    book = {"bids": [["9", "1"], ["8", "2"]], "asks": [["10", "1"], ["11", "2"]]}
    await node.server.market.publishing.publish("ORDERBOOK:A", book, kind="snapshot")


async def test_book_of_some_levels_and_of_grouped_prices() -> None:
    async with running() as node, client_of(node) as client:
        await publish_book(node)
        async with (
            client.market.book("A", depth=1) as top,
            client.market.book("A", depth=5, step=Decimal("5.0")) as grouped,
        ):
            assert top.bids == [(Decimal(9), Decimal(1))]
            assert grouped.topic == "ORDERBOOK:A@5/5"
            assert grouped.asks == [(Decimal(10), Decimal(1)), (Decimal(15), Decimal(2))]
        with pytest.raises(ValueError, match="needs a `depth`"):
            client.market.book("A", step="1")


async def test_instruments_and_the_state_of_a_halted_symbol() -> None:
    async with running() as node, client_of(node) as client:
        await price(node, 1, "A")
        put = node.server.market.instruments.put
        await put("A", {"base": "AA", "status": "HALTED", "venue": "X"})
        await put("B", {"base": "BB"})
        first, _ = await client.market.instruments()
        assert (first.symbol, first.base, first.status) == ("A", "AA", InstrumentStatus.HALTED)
        assert [each.symbol for each in await client.market.instruments("B", "C")] == ["B"]
        assert [each.symbol for each in await client.market.instruments(match="A*")] == ["A"]
        async with client.market.prices("A"):
            assert client.market.status("PRICE:A") is FeedState.HALTED
            await put("A", {"status": "OPEN"})
            await until(lambda: client.market.status("PRICE:A") is FeedState.LIVE)


async def test_candles_and_their_stream() -> None:
    async with running() as node, client_of(node) as client:
        await trade(node, 1)
        (bar,) = await client.market.candles("A", "1m", limit=10)
        assert (bar.t, bar.o, bar.n, bar.closed) == (0, "1", 1, False)
        async with client.market.stream("TRADES:A@1m") as stream:
            (snapshot,) = await take(stream, 1)
            assert snapshot.data.bars == (bar,)
            await trade(node, 2)
            (update,) = await take(stream, 1)
            assert update.data.bars[0].n == 2
            assert update.view == "1m"


async def test_sync_client_has_the_same() -> None:
    async with running() as node:
        await trade(node, 1)
        await publish_book(node)

        def read() -> tuple[Any, ...]:
            url = f"http://127.0.0.1:{node.port}"
            with SyncClient(url, token=node.token("ann")) as client:
                market = client.market
                with market.trades("A", last=1) as trades:
                    read = next(trades)
                    checkpoint = trades.checkpoint
                with market.book("A", depth=1) as book:
                    levels = len(book.bids)
                return read, checkpoint, levels, market.candles("A"), market.instruments("A")

        message, checkpoint, levels, bars, _ = await asyncio.to_thread(read)
        assert number(message) == 1
        assert (checkpoint["TRADES:A"].seq, levels, len(bars)) == (1, 1, 1)


async def test_published_source_time_is_read() -> None:
    async with (
        running() as node,
        client_of(node) as client,
        client.market.prices("A") as prices,
    ):
        await client.market.publish("PRICE:A", PRICE, source_ts=5)
        (message,) = await take(prices, 1)
        assert message.source_ts == 5
