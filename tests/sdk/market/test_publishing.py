"""Publishing over the SDK: batches, an outcome for each message, no duplicates."""

import asyncio
from decimal import Decimal
from typing import Any

import orjson
import pytest

from client_sdk import (
    BufferFull,
    ClientClosed,
    ClientState,
    ForbiddenError,
    InvalidData,
    LimitExceeded,
    PublishConflict,
    RequestRefused,
    SendTimeout,
    TopicError,
)
from client_sdk.contract import Scope
from tests.kit.clients.sdk import abort_connections, client_of, no_leftover_tasks
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running

BOOK = "ORDERBOOK:A"


def requests(node: RunningServer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of messages in each publish request from now on."""
    sizes: list[int] = []
    market = node.server.sockets.namespace_handlers["/market"]
    submit = market._client_publishing.publish

    async def counting(principal: Any, messages: list[object]) -> Any:
        sizes.append(len(messages))
        return await submit(principal, messages)

    monkeypatch.setattr(market._client_publishing, "publish", counting)
    return sizes


async def test_numbers_are_published_with_their_exact_text() -> None:
    async with running() as node, client_of(node) as client, client.market.prices("A") as prices:
        data = {"bid": 1, "ask": 1.5, "last": Decimal("1.10"), "volume": 1e-7, "note": 2.5}
        await client.market.publish("PRICE:A", data)
        published = (await anext(prices)).data
        assert (published.bid, published.ask) == ("1", "1.5")
        assert (published.last, published.volume) == ("1.10", "0.0000001")
        assert published.model_extra == {"note": 2.5}
        levels = {"bids": [(99, 0.1), ("98.50", 1)], "asks": [[100.25, 3]]}
        await client.market.publish("ORDERBOOK:A", levels, type="snapshot")
        async with client.market.book("A") as book:
            assert [(str(price), str(qty)) for price, qty in book.bids] == [
                ("99", "0.1"),
                ("98.50", "1"),
            ]
        deal = {"id": 1, "price": 0.3, "qty": 2, "side": "buy", "ts": 1}
        await client.market.publish("TRADES:A", {"trades": [deal]})
        order = {"order_id": 7, "price": 0.1, "qty": 5}
        await client.market.publish("ORDER_UPDATES", order, user="ann")
        with pytest.raises(InvalidData):
            await client.market.publish("PRICE:A", {**data, "bid": float("nan")})


async def test_concurrent_publishes_share_requests_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as node, client_of(node, batch_messages=10) as client:
        sizes = requests(node, monkeypatch)
        positions = await asyncio.gather(
            *(client.market.publish("TRADES:A", {"trades": []}) for _ in range(25))
        )
        assert [each.seq for each in positions] == list(range(1, 26))
        assert sizes == [10, 10, 5]


async def test_publish_request_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as node, client_of(node) as client:
        sizes = requests(node, monkeypatch)
        large = {"x": "y" * 50_000}
        await asyncio.gather(*(client.market.publish("USER_DATA", large, user="u") for _ in "123"))
        assert sizes == [1, 1, 1]
        with pytest.raises(LimitExceeded) as caught:
            await client.market.publish("USER_DATA", {"x": "y" * 100_000}, user="u")
        assert caught.value.code == "limit.payload"
        assert len(sizes) == 3


async def test_batch_limit_counts_bytes_not_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as node, client_of(node) as client:
        sizes = requests(node, monkeypatch)
        wide = {"x": "価" * 15_000}
        await asyncio.gather(*(client.market.publish("USER_DATA", wide, user="u") for _ in "1234"))
        assert sizes == [2, 2]
        with pytest.raises(LimitExceeded):
            await client.market.publish("USER_DATA", {"x": "価" * 50_000}, user="u")
        assert client.stats.reconnects == 0


async def test_each_message_of_a_batch_has_its_own_outcome() -> None:
    async with running() as node, client_of(node, node.token(symbols=["A"])) as client:
        publish = client.market.publish
        outcomes = await asyncio.gather(
            publish("PRICE:A", PRICE),
            publish("PRICE:B", PRICE),
            publish("NOISE:A", PRICE),
            publish("PRICE:A", {"bid": "x"}),
            publish("PRICE:A", {**PRICE, "last": Decimal("7.10")}),
            return_exceptions=True,
        )
        kinds = [type(each).__name__ for each in outcomes]
        assert kinds == ["Position", "ForbiddenError", "TopicError", "RequestRefused", "Position"]
        assert isinstance(outcomes[1], ForbiddenError)
        assert isinstance(outcomes[2], TopicError)
        assert isinstance(outcomes[3], RequestRefused)
        assert (await anext(client.market.prices("A"))).data.last == "7.10"


async def test_same_id_publishes_once_and_other_data_conflicts() -> None:
    async with running() as node, client_of(node) as client:
        first = await client.market.publish("PRICE:A", PRICE, id="x")
        assert await client.market.publish("PRICE:A", PRICE, id="x") == first
        with pytest.raises(PublishConflict) as caught:
            await client.market.publish("PRICE:A", {**PRICE, "last": "9"}, id="x")
        assert caught.value.code == "publish.conflict"


async def test_batch_with_a_lost_reply_is_published_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as node, client_of(node) as client:
        publish = node.server.backend.broker.publish
        seen = []

        async def publish_and_cut(*arguments: Any, **named: Any) -> Any:
            receipt = await publish(*arguments, **named)
            seen.append(receipt.position.seq)
            if len(seen) == 3:
                abort_connections(node)
            return receipt

        monkeypatch.setattr(node.server.backend.broker, "publish", publish_and_cut)
        positions = await asyncio.gather(
            *(client.market.publish("TRADES:A", {"trades": []}) for _ in range(5))
        )
        assert [each.seq for each in positions] == [1, 2, 3, 4, 5]
        assert client.stats.reconnects == 1
        assert seen[:3] == [1, 2, 3]
        assert max(seen) == 5


async def test_invalid_json_is_refused_before_sending() -> None:
    async with running() as node, client_of(node) as client:
        with pytest.raises(InvalidData):
            await client.market.publish("USER_DATA", {"x": float("inf")}, user="u")
        assert client.stats.reconnects == 0


async def test_token_without_the_scope_fails_every_publish() -> None:
    async with running() as node:
        token = node.token(scopes=[Scope.MARKET_READ])
        async with client_of(node, token) as client:
            outcomes = await asyncio.gather(
                *(client.market.publish("PRICE:A", PRICE) for _ in range(3)),
                return_exceptions=True,
            )
            assert [type(each) for each in outcomes] == [ForbiddenError] * 3


async def test_rate_limited_publish_is_retried() -> None:
    settings = {"limits.events_per_second": 100, "limits.event_burst": 1}
    async with running(settings) as node, client_of(node) as client:
        await client.market.publish("PRICE:A", PRICE)
        second = asyncio.create_task(client.market.publish("PRICE:A", PRICE))
        await asyncio.sleep(0.005)
        node.clock.advance(1.0)
        assert (await second).seq == 2


async def test_offline_publishing_is_bounded_in_number_and_time() -> None:
    async with running() as node:
        client = client_of(node, send_seconds=0.05, pending_messages=1)
        await client.start()
    await until(lambda: client.state is ClientState.OFFLINE)
    waiting = asyncio.create_task(client.market.publish("PRICE:A", PRICE))
    await asyncio.sleep(0)
    with pytest.raises(BufferFull):
        await client.market.publish("PRICE:A", PRICE)
    with pytest.raises(SendTimeout):
        await waiting
    waiting = asyncio.create_task(client.market.publish("PRICE:A", PRICE))
    await asyncio.sleep(0)
    async with no_leftover_tasks():
        await client.close()
    with pytest.raises(ClientClosed):
        await waiting


async def test_offline_publish_succeeds_after_a_reconnect() -> None:
    async with running() as node, client_of(node) as client:
        abort_connections(node)
        await until(lambda: client.state is not ClientState.ONLINE)
        assert (await client.market.publish("PRICE:A", PRICE)).seq == 1


async def test_cancelled_publish_is_not_sent() -> None:
    async with running() as node, client_of(node) as client:
        abort_connections(node)
        await until(lambda: client.state is not ClientState.ONLINE)
        cancelled = asyncio.create_task(client.market.publish("PRICE:A", PRICE))
        await asyncio.sleep(0)
        cancelled.cancel()
        kept = await client.market.publish("PRICE:A", PRICE)
        assert kept.seq == 1


async def test_updates_of_a_book_that_the_server_lost_carry_the_whole_book() -> None:
    async with running() as node, client_of(node) as client:
        publish, broker = client.market.publish, node.server.backend.broker
        await publish(BOOK, {"bids": [["1", "1"], ["2", "2"]], "asks": []}, type="snapshot")
        await publish(BOOK, {"bids": [["1.0", "0"]], "asks": [["9", "1"]]})
        await broker.forget(BOOK)
        positions = await asyncio.gather(
            publish(BOOK, {"bids": [["3", "3"]], "asks": []}),
            publish("PRICE:A", PRICE),
            publish(BOOK, {"bids": [["4", "4"]], "asks": []}),
        )
        assert [each.seq for each in positions] == [1, 1, 2]
        latest = await broker.latest(BOOK)
        assert latest is not None
        assert orjson.loads(latest.data)["bids"] == [["4", "4"], ["3", "3"], ["2", "2"]]
        assert orjson.loads(latest.data)["asks"] == [["9", "1"]]


async def test_update_of_a_book_that_this_client_does_not_know_is_refused() -> None:
    async with running() as node, client_of(node) as client:
        with pytest.raises(RequestRefused) as caught:
            await client.market.publish(BOOK, {"bids": [["1", "1"]], "asks": []})
        assert caught.value.code == "publish.snapshot_required"
