"""Patterns: what matches now and later, within the token's symbols and the limit."""

import asyncio
from typing import Any

import orjson
import pytest

from client_sdk.contract import ErrorCode, Stream
from server.access import Principal
from server.brokers import MemoryBroker
from server.core.errors import FloorcastError, RequestError
from server.core.log.entries import Position
from server.core.market.patterns import TopicPattern
from server.core.market.topics import Topic
from server.services import SubscribingConfig
from server.tasks import cancel_and_wait
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import MarketRig, trader


async def pattern_market(*symbols: str, max_topics: int = 1000) -> MarketRig:
    """A market in which prices of these symbols were published."""
    market = await MarketRig.create(subscribing=SubscribingConfig(max_topics=max_topics))
    await market.kept.start()
    for symbol in symbols:
        await market.price(symbol)
    await market.instruments.flush()
    return market


async def subscribe(
    market: MarketRig, *topics: str, name: str = "ann", principal: Principal | None = None
) -> tuple[RecordingLink, dict[str, Any]]:
    """Connect and subscribe a client."""
    link = market.connect(name)
    replies = await market.service.subscribe(name, principal or trader(name), topics)
    return link, orjson.loads(orjson.dumps(replies))


async def appear(market: MarketRig, *symbols: str) -> None:
    """Publish new symbols, and let the patterns take them."""
    for symbol in symbols:
        await market.price(symbol)
    await market.instruments.flush()
    await market.service.join_matched()
    market.settle()


def symbols_of(link: RecordingLink) -> list[str]:
    return [each["symbol"] for each in link.messages("price")]


@pytest.mark.parametrize("text", ["PRICE:*", "TRADES:BTC*", "ORDERBOOK:*USDT@10", "PRICE:B*/U*:U*"])
def test_pattern_is_parsed(text: str) -> None:
    pattern = TopicPattern.parse(text)
    assert text.startswith(pattern.stream.value)
    assert pattern.match in text


@pytest.mark.parametrize(
    "text", ["PRICE:b*", "USER_DATA:*", "*", "PRICE:*@10", "PRICE:" + "*" * 33]
)
def test_malformed_pattern_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        TopicPattern.parse(text)


def test_view_of_a_pattern_is_that_of_its_topics() -> None:
    pattern = TopicPattern.parse("ORDERBOOK:BTC*@10/0.5")
    assert pattern.topic("BTCUSDT").name == "ORDERBOOK:BTCUSDT@10/0.5"
    assert pattern.matches(Topic(Stream.ORDERBOOK, "BTCUSDT"))
    assert not pattern.matches(Topic(Stream.PRICE, "BTCUSDT"))


async def test_pattern_is_answered_with_what_matches_now() -> None:
    market = await pattern_market("BTCEUR", "BTCUSDT", "ETHUSDT")
    _, replies = await subscribe(market, "PRICE:BTC*", "PRICE:X")
    pattern = replies["PRICE:BTC*"]
    assert (pattern["status"], pattern["matched"]) == ("CONNECTED", 2)
    assert list(pattern["topics"]) == ["PRICE:BTCEUR", "PRICE:BTCUSDT"]
    assert all(each["snapshot"]["seq"] == 1 for each in pattern["topics"].values())
    assert replies["PRICE:X"]["known"] is False


async def test_symbol_that_appears_later_begins_with_a_snapshot() -> None:
    market = await pattern_market("BTCUSDT")
    ann, _ = await subscribe(market, "PRICE:BTC*")
    await appear(market, "BTCEUR", "ETHUSDT")
    (message,) = ann.messages("price")
    assert (message["symbol"], message["type"]) == ("BTCEUR", "snapshot")
    await market.price("BTCEUR")
    market.settle()
    assert [each["prev"] for each in ann.messages("price")][1:] == [1]
    assert len(market.service.subscriptions("ann")) == 3


async def test_pattern_stays_within_the_symbols_of_the_token() -> None:
    market = await pattern_market("A1", "B1")
    narrowed = Principal("eve", "default", frozenset({"market:read"}), 1e12, symbols=("A*",))
    eve, replies = await subscribe(market, "PRICE:*", name="eve", principal=narrowed)
    assert list(replies["PRICE:*"]["topics"]) == ["PRICE:A1"]
    await appear(market, "A2", "B2")
    assert symbols_of(eve) == ["A2"]
    other = Principal("eve", "default", frozenset({"market:read"}), 1e12, symbols=("B*",))
    await market.service.end_forbidden("eve", other)
    await appear(market, "A3", "B3")
    assert symbols_of(eve) == ["A2", "B3"]


async def test_pattern_stays_within_the_limit_of_topics() -> None:
    market = await pattern_market("A", "B", "C", max_topics=2)
    ann, replies = await subscribe(market, "PRICE:*")
    pattern = replies["PRICE:*"]
    assert (pattern["matched"], pattern["refused"]) == (2, 1)
    assert pattern["limit"]["code"] == "limit.topics"
    await appear(market, "D")
    (status,) = ann.messages("status")
    assert (status["symbol"], status["error"]["code"]) == ("D", "limit.topics")


async def test_unsubscribed_pattern_takes_its_topics_along_but_not_others() -> None:
    market = await pattern_market("A", "AB", "B")
    ann, _ = await subscribe(market, "PRICE:A", "PRICE:A*", "PRICE:*B")
    await market.service.unsubscribe("ann", trader("ann"), ["PRICE:A*"])
    left = list(market.service.subscriptions("ann"))
    assert left == [
        "PRICE:A",
        "PRICE:AB",
        "PRICE:B",
        "PRICE:*B",
    ]
    await appear(market, "AC", "CB")
    assert symbols_of(ann) == ["CB"]
    await market.service.unsubscribe("ann", trader("ann"), ["PRICE:*B", "PRICE:A"])
    assert market.hub.channels() == ()
    await appear(market, "DB")
    assert symbols_of(ann) == ["CB"]


async def test_topic_named_by_the_client_keeps_its_interval() -> None:
    market = await pattern_market("A", "B")
    market.connect("ann")
    await market.subscribe("ann", "PRICE:A", interval_ms=1000)
    reply: Any = await market.subscribe("ann", "PRICE:*", interval_ms=100)
    assert list(reply["PRICE:*"]["topics"]) == ["PRICE:B"]
    listed = market.service.subscriptions("ann")
    assert [listed[each]["interval_ms"] for each in ("PRICE:A", "PRICE:B")] == [1000, 100]


async def test_lost_connection_gets_new_symbols_when_it_resumes() -> None:
    market = await pattern_market("A")
    market.connect("ann", numbered=True)
    await market.subscribe("ann", "PRICE:*")
    market.park("ann")
    offset = market.recovery.last_offset("ann")
    await appear(market, "B")
    link = market.link()
    assert market.resume("ann", link, offset)
    market.settle()
    before = symbols_of(link)
    await market.service.join_matched()
    market.settle()
    assert symbols_of(link) == [*before, "B"]


async def test_connection_with_a_pattern_is_not_exported() -> None:
    market = await pattern_market("A")
    market.connect("ann", numbered=True)
    await market.subscribe("ann", "PRICE:*")
    market.park("ann")
    assert market.recovery.export_parked("ann", ("default", "ann"), None) is None
    await appear(market, "B")
    await market.recovery.release_idle()
    assert market.hub.channels() == ()


async def test_removed_connection_leaves_no_pattern() -> None:
    market = await pattern_market("A")
    await subscribe(market, "PRICE:*")
    await market.service.remove_connection("ann")
    await appear(market, "B")
    assert market.hub.channels() == ()
    assert len(market.subscriptions) == 0


async def test_connection_has_a_limited_number_of_patterns() -> None:
    market = await pattern_market("A1")
    wanted = [f"PRICE:{'*' * stars}A*" for stars in range(1, 29)]
    wanted = [each.replace("A", letter) for letter in "ABCD" for each in wanted]
    _, replies = await subscribe(market, *wanted)
    refused = [name for name, each in replies.items() if each["status"] == "ERROR"]
    assert refused == wanted[100:]
    assert {replies[each]["error"]["code"] for each in refused} == {"limit.topics"}
    await market.service.unsubscribe("ann", trader("ann"), wanted[:5])
    again: Any = await market.subscribe("ann", *refused[:5])
    assert {each["status"] for each in again.values()} == {"CONNECTED"}


async def test_search_of_many_symbols_lets_others_run() -> None:
    market = await pattern_market()
    for index in range(10_000):
        market.instruments.table.add_stream(Topic(Stream.PRICE, f"S{index}"))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await market.client("ann", "PRICE:*X*", "PRICE:*Y*")
    assert turns >= 10
    turns = 0
    await market.instruments.find(trader(), pattern="*X*")
    assert turns >= 5
    await cancel_and_wait(counting)


class FailingBroker(MemoryBroker):
    """Refuses to open topics while it is down."""

    down = False

    async def head(self, channel: str) -> Position:
        if self.down:
            raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker is down")
        return await super().head(channel)


async def test_new_symbols_of_patterns_wait_for_the_broker() -> None:
    market = await MarketRig.create(broker=FailingBroker)
    await market.kept.start()
    links = [(await subscribe(market, "PRICE:*", name=name))[0] for name in ("ann", "bob")]
    for symbol in ("A", "B"):
        await market.price(symbol)
    await market.instruments.flush()
    FailingBroker.down = True
    await market.service.join_matched()
    FailingBroker.down = False
    await market.service.join_matched()
    market.settle()
    assert [sorted(symbols_of(link)) for link in links] == [["A", "B"]] * 2
