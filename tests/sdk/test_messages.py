"""The message models: types, unknown fields, age."""

import copy
import pickle
import time

import pytest
from pydantic import ValidationError

from client_sdk import BookMessage, PriceMessage, SessionMessage
from client_sdk.connection.clock import ServerClock

PRICE = (
    '{"stream":"PRICE","symbol":"A","type":"update","epoch":"e","seq":2,"prev":1,"ts":%d,'
    '"data":{"bid":"1.00","ask":"2","last":"1.50","volume":"0","mood":"good"},"merged":3,'
    '"age_ms":7,"novelty":true}'
)


def price(ts: int = 1) -> PriceMessage:
    return PriceMessage.model_validate_json(PRICE % ts)


def test_message_is_typed_and_ignores_unknown_fields() -> None:
    message = price()
    assert (message.symbol, message.data.last, message.merged) == ("A", "1.50", 3)
    assert message.topic == "PRICE:A"
    assert message.data.model_extra == {"mood": "good"}
    with pytest.raises(ValidationError):
        message.seq = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        PriceMessage.model_validate_json((PRICE % 1).replace('"1.50"', "1.5"))


def test_book_message_ignores_unknown_fields() -> None:
    body = (
        '{"stream":"ORDERBOOK","symbol":"A","type":"snapshot","epoch":"e","seq":2,"prev":1,"ts":1,'
        '"data":{"bids":[["1","2"]],"asks":[],"checksum":5,"novelty":1}}'
    )
    assert BookMessage.model_validate_json(body).data.bids == [("1", "2")]


def test_message_age_works_without_a_client() -> None:
    a_minute_ago = int((time.time() - 60) * 1000)
    message = price(a_minute_ago)
    assert 59 < message.age < 70
    message.use_clock(ServerClock(wall=lambda: a_minute_ago / 1000 + 5))
    assert message.age == pytest.approx(5, abs=0.01)
    for other in (copy.copy(message), pickle.loads(pickle.dumps(message))):
        assert other == message
        assert other.age > 4


def test_session_message_has_the_fields_of_a_market_message() -> None:
    message = SessionMessage(
        session_id="job:42", epoch="e", seq=7, id="i", user_id="ann", data={}, ts=1
    )
    assert (message.topic, message.prev, message.type) == ("job:42", 6, "update")
