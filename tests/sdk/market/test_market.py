"""Reading the market: message types, shared subscriptions, slow readers, reconnects."""

import asyncio
import gc
from typing import Any, Literal

import pytest

from client_sdk import (
    BookMessage,
    Client,
    ClientState,
    FeedState,
    ForbiddenError,
    Gap,
    GapReason,
    LimitExceeded,
    PriceMessage,
    Status,
    TopicError,
    TradesMessage,
)
from client_sdk.contract import Scope
from tests.kit.clients.sdk import (
    abort_connections,
    client_of,
    client_tasks,
    config,
    no_leftover_tasks,
)
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.in_process import PRICE, RunningServer, running


async def trade(node: RunningServer, number: int, symbol: str = "A") -> None:
    """Publish one trade with its number as id."""
    body = {"id": number, "price": "1", "qty": "1", "side": "buy", "ts": 1}
    await node.server.market.publishing.publish(f"TRADES:{symbol}", {"trades": [body]})


async def price(node: RunningServer, last: object, symbol: str = "A") -> None:
    """Publish a price."""
    await node.server.market.publishing.publish(f"PRICE:{symbol}", {**PRICE, "last": str(last)})


def number(item: TradesMessage | Gap) -> object:
    """The id of the only trade in a message."""
    assert isinstance(item, TradesMessage)
    return item.data.trades[0].id


async def numbers(stream: Any, count: int) -> list[object]:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        return [number(await anext(stream)) for _ in range(count)]


async def test_stream_starts_with_the_state_and_continues_in_order() -> None:
    async with running() as node, client_of(node) as client:
        await trade(node, 1)
        async with client.market.trades("A") as trades:
            for each in range(2, 6):
                await trade(node, each)
            assert await numbers(trades, 5) == [1, 2, 3, 4, 5]
            position = trades.position("TRADES:A")
            assert position is not None
            assert position.seq == 5


async def test_every_stream_has_its_message_type() -> None:
    async with running() as node, client_of(node) as client:
        bodies: dict[str, dict[str, Any]] = {
            "PRICE:A": PRICE,
            "ORDERBOOK:A": {"bids": [["1", "2"]], "asks": []},
            "TRADES:A": {"trades": []},
            "USER_DATA": {"any": {"thing": 1}},
            "BOT_STATUS": {"bot_id": 7, "status": "up"},
            "RISK_ALERTS": {"level": "high", "message": "look"},
            "ORDER_UPDATES": {"order_id": "o", "qty": "1.50"},
        }
        async with client.market.stream(*bodies) as stream:
            for topic, body in bodies.items():
                user = None if ":" in topic else "ann"
                type_: Literal["snapshot", "update"] = (
                    "snapshot" if topic == "ORDERBOOK:A" else "update"
                )
                await client.market.publish(topic, body, user=user, type=type_)
            for topic, body in bodies.items():
                message = await anext(stream)
                assert not isinstance(message, Gap)
                assert message.topic == topic
                sent = message.data.model_dump(exclude_unset=True, mode="json")
                assert {key: sent[key] for key in body} == body


async def test_slow_reader_of_prices_gets_the_latest_of_each_symbol() -> None:
    async with (
        running() as node,
        client_of(node) as client,
        client.market.prices("A", "B") as prices,
    ):
        for each in range(50):
            await price(node, each, "A")
            await price(node, -each, "B")
        await until(lambda: client.stats.received == 100)
        received = [await anext(prices), await anext(prices)]
        assert [(each.symbol, each.data.last) for each in received] == [("A", "49"), ("B", "-49")]
        assert client.stats.merged == 98


async def test_slow_reader_of_trades_catches_up_from_the_history() -> None:
    async with (
        running() as node,
        client_of(node, buffer_messages=4) as client,
        client.market.trades("A") as trades,
    ):
        for each in range(1, 51):
            await trade(node, each)
        await until(lambda: client.stats.received == 50)
        assert await numbers(trades, 50) == list(range(1, 51))
        assert client.stats.gaps == 0


async def test_reading_goes_on_from_a_checkpoint() -> None:
    async with running() as node:
        async with client_of(node) as client, client.market.trades("A") as trades:
            for each in (1, 2):
                await trade(node, each)
            first = await anext(trades)
            assert isinstance(first, TradesMessage)
            checkpoint = first.position
        await trade(node, 3)
        async with client_of(node) as client:
            assert await numbers(client.market.trades("A", since=checkpoint), 2) == [2, 3]
            since = {"TRADES:A": checkpoint}
            stream = client.market.stream("TRADES:A", "PRICE:A", since=since)
            second = await anext(stream)
            assert isinstance(second, TradesMessage)
            assert second.seq == 2
            with pytest.raises(ValueError, match="not read"):
                client.market.trades("B", since=since)
            with pytest.raises(ValueError, match="mapping"):
                client.market.trades("A", "B", since=checkpoint)


async def test_slow_reader_of_trades_gets_a_gap_for_lost_history() -> None:
    settings = {"history.messages": 5}
    async with (
        running(settings) as node,
        client_of(node, buffer_messages=2) as client,
        client.market.trades("A") as trades,
    ):
        for each in range(1, 31):
            await trade(node, each)
        await until(lambda: client.stats.received == 30)
        assert await numbers(trades, 2) == [1, 2]
        gap = await anext(trades)
        assert isinstance(gap, Gap)
        assert (gap.missed_from, gap.missed_to, gap.reason) == (3, 29, GapReason.HISTORY)
        assert await numbers(trades, 1) == [30]
        await trade(node, 31)
        assert await numbers(trades, 1) == [31]
        assert client.stats.gaps == 1


async def test_slow_reader_of_a_raw_book_gets_a_new_snapshot() -> None:
    async with (
        running() as node,
        client_of(node, buffer_messages=2) as client,
        client.market.stream("ORDERBOOK:A") as books,
    ):
        for each in range(1, 21):
            levels = {"bids": [[str(each), "1"]], "asks": []}
            kind = "snapshot" if each == 1 else "update"
            await node.server.market.publishing.publish("ORDERBOOK:A", levels, kind=kind)
        await until(lambda: client.stats.received == 20)
        items = [await anext(books) for _ in range(3)]
        messages = [each for each in items if isinstance(each, BookMessage)]
        assert [(each.type, each.seq) for each in messages] == [
            ("snapshot", 1),
            ("update", 2),
            ("snapshot", 20),
        ]
        assert len(messages[2].data.bids) == 20


async def test_messages_missed_during_a_disconnect_are_fetched() -> None:
    async with (
        running() as node,
        no_leftover_tasks(),
        client_of(node) as client,
        client.market.stream("TRADES:A", "TRADES:B", "PRICE:A") as stream,
    ):
        await trade(node, 1)
        await price(node, 1)
        await until(lambda: client.stats.received == 2)
        abort_connections(node)
        for each in (2, 3):
            await trade(node, each)
            await trade(node, each, "B")
        await price(node, 2)
        await until(lambda: client.stats.reconnects == 1)
        await trade(node, 4)
        received: dict[str, list[object]] = {"TRADES:A": [], "TRADES:B": [], "PRICE:A": []}
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while len(received["TRADES:A"]) < 4 or "2" not in received["PRICE:A"]:
                item = await anext(stream)
                assert not isinstance(item, Gap)
                if isinstance(item, PriceMessage):
                    received[item.topic].append(item.data.last)
                elif isinstance(item, TradesMessage):
                    received[item.topic].append(number(item))
        assert received["TRADES:A"] == [1, 2, 3, 4]
        # It had no message before the disconnect, so it starts at the current state.
        assert received["TRADES:B"] == [2, 3]


async def test_server_restart_is_a_gap_in_complete_streams_only() -> None:
    async with running() as node:
        port = node.port
        await trade(node, 1)
        await price(node, 1)
        client = client_of(node)
        await client.start()
        trades, prices = client.market.trades("A"), client.market.prices("A")
        assert await numbers(trades, 1) == [1]
        assert (await anext(prices)).data.last == "1"
    await until(lambda: client.state is ClientState.OFFLINE)
    async with running({"server.port": port}) as node, no_leftover_tasks():
        await trade(node, 7)
        await price(node, 7)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            gap = await anext(trades)
            assert isinstance(gap, Gap)
            assert (gap.topic, gap.missed_from, gap.missed_to) == ("TRADES:A", 2, None)
            assert gap.reason is GapReason.EPOCH
            assert await numbers(trades, 1) == [7]
            assert (await anext(prices)).data.last == "7"
        await client.close()


async def test_last_reader_ends_the_shared_subscription() -> None:
    async with running() as node, client_of(node) as client:
        first = client.market.prices("A")
        await first.ready()
        await price(node, 1)
        assert (await anext(first)).data.last == "1"
        second = client.market.prices("A", "B")
        # A later reader gets the state at once.
        assert (await anext(second)).data.last == "1"
        await price(node, 2)
        assert (await anext(first)).data.last == (await anext(second)).data.last == "2"
        assert len(node.server.market.subscriptions) == 2
        first.close()
        await price(node, 3)
        assert (await anext(second)).data.last == "3"
        second.close()
        await until(lambda: len(node.server.market.subscriptions) == 0)
        # A new reader subscribes again.
        async with client.market.prices("A") as third:
            assert (await anext(third)).data.last == "3"


async def test_leaving_a_loop_ends_its_subscription() -> None:
    async with running() as node, client_of(node) as client:
        await price(node, 1)
        async for _ in client.market.prices("A"):
            break
        gc.collect()
        await until(lambda: len(node.server.market.subscriptions) == 0)


async def test_shortest_interval_of_all_readers_is_requested() -> None:
    async with running() as node, client_of(node) as client:

        def intervals_ms() -> list[int]:
            [joined] = node.server.clients.context.clients()
            [found] = node.server.market.subscriptions.of_connection(joined.connection_id)
            return list(found.connections.values())

        async with client.market.prices("A", interval_ms=1000):
            assert intervals_ms() == [1000]
            async with client.market.prices("A", interval_ms=250):
                assert intervals_ms() == [250]
                async with client.market.prices("A", interval_ms=1000):
                    assert intervals_ms() == [250]


async def test_refused_topic_ends_only_its_stream() -> None:
    async with running() as node, client_of(node, node.token(symbols=["A"])) as client:
        good = client.market.prices("A")
        with pytest.raises(ForbiddenError):
            await anext(client.market.prices("A", "B"))
        with pytest.raises(ForbiddenError):
            async with client.market.trades("B"):
                raise AssertionError
        with pytest.raises(TopicError) as caught:
            client.market.stream("NOISE:A")
        assert caught.value.code == "topic.unknown"
        with pytest.raises(TopicError):
            await anext(client.market.prices("lower case"))
        with pytest.raises(ValueError, match="at least one"):
            client.market.prices()
        await price(node, 1)
        assert (await anext(good)).data.last == "1"


async def test_token_without_the_read_scope_is_refused() -> None:
    async with running() as node:
        token = node.token(scopes=[Scope.MARKET_PUBLISH])
        async with client_of(node, token) as client:
            with pytest.raises(ForbiddenError) as caught:
                await anext(client.market.prices("A"))
            assert caught.value.code == "auth.forbidden"


async def test_narrower_token_ends_a_stream_with_an_error() -> None:
    async with running() as node:
        tokens = [node.token(ttl_seconds=60)]
        async with client_of(node, lambda: tokens[-1]) as client:
            lost, kept = client.market.prices("A"), client.market.prices("B")
            for symbol in ("A", "B"):
                await node.server.market.publishing.publish(f"PRICE:{symbol}", PRICE)
            await anext(lost), await anext(kept)
            tokens.append(node.token(symbols=["B"]))
            node.pass_time(31)
            with pytest.raises(ForbiddenError, match="the token does not allow PRICE:A"):
                await anext(lost)
            await node.server.market.publishing.publish("PRICE:B", PRICE)
            await anext(kept)


async def test_too_many_topics_raise_limit_exceeded() -> None:
    async with running({"limits.topics_per_connection": 2}) as node, client_of(node) as client:
        with pytest.raises(LimitExceeded) as caught:
            await anext(client.market.prices("A", "B", "C"))
        assert caught.value.code == "limit.topics"


async def test_many_topics_are_split_over_several_requests() -> None:
    symbols = [f"S{each}" for each in range(150)]
    async with running() as node, client_of(node) as client, client.market.prices(*symbols):
        assert len(node.server.market.subscriptions) == 150


async def test_invalid_topic_or_interval_does_not_affect_other_readers() -> None:
    async with running() as node, client_of(node) as client:
        prices = client.market.prices("A")
        with pytest.raises(TopicError):
            client.market.prices("A" * 100)
        with pytest.raises(ValueError, match="interval"):
            client.market.prices("A", interval_ms=-1)
        with pytest.raises(ValueError, match="interval"):
            client.market.book("A", interval_ms=-1)
        await prices.ready()


async def test_closing_many_streams_at_once_does_not_block_others() -> None:
    async with running() as node, client_of(node) as client:
        abort_connections(node)
        await until(lambda: client.state is ClientState.OFFLINE)
        for each in range(1001):
            client.market.prices(f"S{each}").close()
        async with client.market.trades("A"):
            assert client.stats.reconnects == 1


async def test_rate_limited_subscribe_is_retried() -> None:
    settings = {"limits.events_per_second": 50, "limits.event_burst": 1}
    async with running(settings) as node, client_of(node) as client:
        streams = []
        for each in range(3):
            streams.append(client.market.prices(f"S{each}"))
            await asyncio.sleep(0)
            node.clock.advance(0.005)

        async def pass_time() -> None:
            while True:
                await asyncio.sleep(0.001)
                node.clock.advance(0.01)

        passing = asyncio.create_task(pass_time())
        for stream in streams:
            await stream.ready()
        passing.cancel()
        assert len(node.server.market.subscriptions) == 3


async def test_heartbeat_triggers_a_fetch_of_lost_messages() -> None:
    async with (
        running() as node,
        client_of(node) as client,
        client.market.stream("TRADES:A", "PRICE:A") as stream,
    ):
        await trade(node, 1)
        await price(node, 1)
        await anext(stream)
        await anext(stream)
        node.pass_time(16)
        # The reply comes after the heartbeats.
        await client.market.prices("B").ready()
        assert client.stats.gaps_seen == 0
        # Pretend that the messages did not arrive.
        for topic in ("TRADES:A", "PRICE:A"):
            stream._reader._trackers[topic].seq = 0
        node.pass_time(16)
        items = [await anext(stream), await anext(stream)]
        assert {type(each) for each in items} == {TradesMessage, PriceMessage}
        assert client.stats.gaps_seen == 2


async def test_silent_feed_changes_the_status() -> None:
    async with running() as node, client_of(node) as client:
        changes: list[Status] = []
        ignored: list[Status] = []
        client.market.on_status(changes.append)
        client.market.on_status(ignored.append)()
        assert client.market.status("PRICE:A") is None
        async with client.market.prices("A") as prices:
            await price(node, 1)
            await anext(prices)
            assert client.market.status("PRICE:A") is FeedState.LIVE
            node.pass_time(11)
            await until(lambda: client.market.status("PRICE:A") is FeedState.STALE)
            await price(node, 2)
            await until(lambda: client.market.status("PRICE:A") is FeedState.LIVE)
            assert [each.state for each in changes] == [FeedState.STALE, FeedState.LIVE]
            assert ignored == []
            client.market.on_status(lambda status: 1 / 0)  # type: ignore[arg-type]
            node.pass_time(11)
            await until(lambda: client.market.status("PRICE:A") is FeedState.STALE)
            abort_connections(node)
            await until(lambda: client.market.status("PRICE:A") is None)
            await until(lambda: client.market.status("PRICE:A") is FeedState.STALE)


async def test_plain_and_async_callbacks_get_items_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node, no_leftover_tasks(), client_of(node) as client:
        plain: list[object] = []
        slow: list[object] = []

        async def take(item: TradesMessage | Gap) -> None:
            await asyncio.sleep(0)
            slow.append(number(item))
            if number(item) == 2:
                raise RuntimeError("raised by a test")

        first = client.market.on("TRADES:A", lambda item: plain.append(number(item)))
        client.market.on("TRADES:A", take)
        await until(lambda: len(node.server.market.subscriptions) == 1)
        for each in range(1, 4):
            await trade(node, each)
        await until(lambda: len(plain) == len(slow) == 3)
        assert plain == slow == [1, 2, 3]
        assert "a callback failed" in caplog.text
        first.close()
        await trade(node, 4)
        await until(lambda: len(slow) == 4)
        assert plain == [1, 2, 3]


async def test_callback_of_a_refused_topic_has_its_error(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as node, client_of(node, node.token(symbols=["A"])) as client:
        callback = client.market.on("TRADES:B", lambda item: None)
        await until(lambda: callback.error is not None)
        assert isinstance(callback.error, ForbiddenError)


async def test_callback_can_close_the_client() -> None:
    async with running() as node, no_leftover_tasks():
        client = client_of(node)
        await client.start()

        async def stop(item: object) -> None:
            await client.close()

        client.market.on("TRADES:A", stop)
        await until(lambda: len(node.server.market.subscriptions) == 1)
        await trade(node, 1)
        await until(lambda: client.state is ClientState.CLOSED)
        await until(lambda: not client_tasks())
        await node.until_empty()


async def test_stream_allows_one_reader_at_a_time() -> None:
    async with running() as node, client_of(node) as client:
        prices = client.market.prices("A")
        await prices.ready()
        reading = asyncio.create_task(anext(prices))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(prices)
        reading.cancel()
        await prices.aclose()


async def test_client_without_a_token_reads_an_open_market() -> None:
    async with (
        running({"auth.market_optional": True}) as node,
        Client(node.url, config=config()) as client,
    ):
        await price(node, 5)
        assert (await anext(client.market.prices("A"))).data.last == "5"


async def test_callback_closed_at_once_is_forgotten() -> None:
    async with running() as node, client_of(node) as client:
        client.market.on("TRADES:A", lambda item: None).close()
        await until(lambda: not client.market._callbacks._running)
