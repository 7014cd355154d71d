"""Topics: valid names, and channels that cannot collide."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client_sdk.contract import ErrorCode, Stream
from server.core.errors import RequestError
from server.core.market.topics import Topic, channel_for


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("PRICE:BTCUSDT", Topic(Stream.PRICE, "BTCUSDT")),
        ("TRADES:EUR/USD", Topic(Stream.TRADES, "EUR/USD")),
        ("ORDERBOOK:BRK.B", Topic(Stream.ORDERBOOK, "BRK.B")),
        ("TRADES:BTC/USDT:USDT", Topic(Stream.TRADES, "BTC/USDT:USDT")),
        ("USER_DATA", Topic(Stream.USER_DATA, None)),
        ("PRICE:" + "A" * 32, Topic(Stream.PRICE, "A" * 32)),
    ],
)
def test_topic_name_round_trips(name: str, topic: Topic) -> None:
    assert Topic.parse(name) == topic
    assert topic.name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "PRICE",
        "PRICE:",
        "PRICE:btc",
        "PRICE:BTC USDT",
        "PRICE:BTCUSDT\n",
        "PRICE:-A",
        "PRICE:" + "A" * 33,
        "PRICE::A",
        "price:BTC",
        "NOISE:BTC",
        "USER_DATA:ann",
        "USER_DATA:",
    ],
)
def test_invalid_topic_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(RequestError) as refusal:
        Topic.parse(name)
    assert refusal.value.code is ErrorCode.TOPIC_UNKNOWN
    assert refusal.value.message


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("PRICE:btcusdt", "PRICE:BTCUSDT"),
        ("price:BTC/USDT:USDT", "PRICE:BTC/USDT:USDT"),
        ("user_data", "USER_DATA"),
    ],
)
def test_lower_case_topic_gets_the_right_spelling(name: str, right: str) -> None:
    with pytest.raises(RequestError, match=f"use {right}$"):
        Topic.parse(name)


def test_lower_case_that_is_no_topic_gets_no_spelling() -> None:
    for name in ("noise:btc", "PRICE:b c", "PRICE:stra\N{LATIN SMALL LETTER SHARP S}e"):
        with pytest.raises(RequestError) as refusal:
            Topic.parse(name)
        assert "upper case" not in refusal.value.message


text = st.text(min_size=1, max_size=8)


@given(text, text, text, text)
@example("a:b", "c", "a", "b:c")
@example("a", "1:b:c", "a:1:b", "c")
@example("1:a", "b", "1", "a:b")
@example("a@1", "b", "a", "1:b")
def test_no_two_users_share_a_private_channel(org: str, user: str, org2: str, user2: str) -> None:
    topic = Topic(Stream.USER_DATA, None)
    same = (org, user) == (org2, user2)
    assert (channel_for(topic, org, user) == channel_for(topic, org2, user2)) is same
    assert not channel_for(topic, org, user).startswith("PRICE:")


def test_public_channel_is_the_same_for_everybody() -> None:
    topic = Topic(Stream.PRICE, "A")
    assert channel_for(topic, "acme", "ann") == channel_for(topic, "other", "bob") == "PRICE:A"


def test_each_private_stream_has_its_own_channel() -> None:
    topics = [Topic(stream, None) for stream in Stream if not stream.per_symbol]
    assert len({channel_for(topic, "acme", "ann") for topic in topics}) == 4
