"""PublishingService: positions of valid messages, errors of invalid ones."""

from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from server.brokers import MemoryBroker
from server.core.errors import FloorcastError
from server.core.log.entries import Position
from server.core.wire.strict_json import dumps
from server.services import PublishingConfig, PublishingService
from tests.kit.clock import START
from tests.kit.rigs.market import MarketRig
from tests.kit.server.in_process import PRICE


async def service() -> tuple[PublishingService, MemoryBroker]:
    market = await MarketRig.create(publishing=PublishingConfig(message_bytes=1024))
    return market.publishing, market.broker


async def test_update_is_stamped_and_stored_verbatim() -> None:
    publishing, broker = await service()
    data = {**PRICE, "last": "1.010", "venue": {"name": "XETR", "depth": [1, 2.5, None]}}
    assert await publishing.publish("PRICE:A", data) == Position("e1", 1)
    entry = await broker.latest("PRICE:A")
    assert entry is not None
    assert entry.ts_ms == START * 1000
    assert b'"last":"1.010"' in entry.data
    assert b'{"name":"XETR","depth":[1,2.5,null]}' in entry.data


@pytest.mark.parametrize(
    ("topic", "change", "code"),
    [
        ("PRICE", {}, "topic.unknown"),
        ("NOISE:A", {}, "topic.unknown"),
        ("TRADES:A", {}, "request.invalid"),
        ("USER_DATA:A", {}, "topic.unknown"),
        ("USER_DATA", {}, "request.invalid"),
        ("PRICE:A", {"bid": 1}, "request.invalid"),
        ("PRICE:A", {"bid": "one"}, "request.invalid"),
        ("PRICE:A", {"bid": "NaN"}, "request.invalid"),
        ("PRICE:A", {"bid": "1" * 41}, "request.invalid"),
        ("PRICE:A", {"bid": None}, "request.invalid"),
        ("PRICE:A", {"bid": "1_000"}, "request.invalid"),
        ("PRICE:A", {"extra": "\ud800"}, "request.invalid"),
        ("PRICE:A", {7: "no text"}, "request.invalid"),
        ("PRICE:A", {"extra": float("nan")}, "request.invalid"),
        ("PRICE:A", {"extra": Decimal(1)}, "request.invalid"),
        ("PRICE:A", {"extra": "x" * 1024}, "limit.payload"),
    ],
)
async def test_invalid_message_is_refused_without_a_position(
    topic: str, change: dict[Any, Any], code: str
) -> None:
    publishing, broker = await service()
    with pytest.raises(FloorcastError) as refused:
        await publishing.publish(topic, {**PRICE, **change})
    assert refused.value.code == code
    assert (await broker.head("PRICE:A")).seq == 0


async def test_error_names_the_missing_field() -> None:
    publishing, _ = await service()
    with pytest.raises(FloorcastError, match="PRICE:A: volume: Field required"):
        await publishing.publish("PRICE:A", {"bid": "1", "ask": "1", "last": "1"})


async def test_publish_copies_any_mapping() -> None:
    publishing, broker = await service()
    data = dict(PRICE)
    await publishing.publish("PRICE:A", MappingProxyType(data))
    data["last"] = "9"
    entry = await broker.latest("PRICE:A")
    assert entry is not None
    assert b'"last":"1.01"' in entry.data


async def test_message_at_the_size_limit_is_accepted() -> None:
    publishing, _ = await service()
    room = 1024 - len(dumps({**PRICE, "extra": ""}))
    assert (await publishing.publish("PRICE:A", {**PRICE, "extra": "x" * room})).seq == 1
    with pytest.raises(FloorcastError) as refused:
        await publishing.publish("PRICE:A", {**PRICE, "extra": "x" * (room + 1)})
    assert refused.value.code == "limit.payload"
