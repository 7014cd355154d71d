"""The models of `/market`: valid and invalid requests, and the server's replies."""

import orjson
import pytest
from pydantic import ValidationError

from client_sdk.contract import (
    INTERVALS_MS,
    ConnectAuth,
    ErrorCode,
    ListSubscriptions,
    PriceData,
    PriceMessage,
    Request,
    Stream,
    Subscribe,
    SubscriptionStatus,
    TopicReply,
    Unsubscribe,
)
from tests.kit.clock import START
from tests.kit.rigs.market import MarketRig
from tests.kit.server.in_process import PRICE


@pytest.mark.parametrize("text", ["0", "-0.5", "64250.00", "1E-8", "1e+10", "9" * 40])
def test_decimal_keeps_its_text(text: str) -> None:
    price = PriceData.model_validate({**PRICE, "bid": text})
    assert price.bid == text
    assert price.model_dump()["bid"] == text


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1", "1 ", "1\n", "1_000", "1,5", "+1", "1.", ".5", "0x1", "1e999", "9" * 41),
        *("NaN", "sNaN", "Infinity", "-inf"),
        *("\N{ARABIC-INDIC DIGIT ONE}", "\N{FULLWIDTH DIGIT ONE}"),
    ],
)
def test_ambiguous_number_text_is_no_decimal(text: str) -> None:
    with pytest.raises(ValidationError):
        PriceData.model_validate({**PRICE, "bid": text})


def test_price_accepts_extra_fields() -> None:
    extra = {"venue": {"name": "XETR"}}
    assert PriceData.model_validate({**PRICE, **extra}).model_dump() == {**PRICE, **extra}


@pytest.mark.parametrize(
    "session_id",
    ["", "a\n", "-a", ":a", "a b", "a/b", "é", "a" * 129, 7, ["a"], True],
)
@pytest.mark.behaviour("D49")
def test_invalid_session_id_is_refused(session_id: object) -> None:
    with pytest.raises(ValidationError):
        ConnectAuth.model_validate({"session_id": session_id})


@pytest.mark.parametrize("session_id", ["job:42", "thread:7", "0", "a" * 128, "A_.:-"])
def test_auth_accepts_a_session_id_beside_other_fields(session_id: str) -> None:
    auth = ConnectAuth.model_validate({"session_id": session_id, "token": "x", "recovery": False})
    assert auth.session_id == session_id


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Subscribe, {}),
        (Subscribe, {"topics": []}),
        (Subscribe, {"topics": "PRICE:A"}),
        (Subscribe, {"topics": [7]}),
        (Subscribe, {"topics": [""]}),
        (Subscribe, {"topics": ["A" * 81]}),
        (Subscribe, {"topics": ["A"] * 1001}),
        (Subscribe, {"topics": ["A"], "interval_ms": "1"}),
        (Subscribe, {"topics": ["A"], "interval_ms": -1}),
        (Subscribe, {"topics": ["A"], "interval_ms": True}),
        (Subscribe, {"topics": ["A"], "interval_ms": 1.0}),
        (Subscribe, {"topics": ["A"], "since": {"A": {"epoch": "e", "seq": -1}}}),
        (Subscribe, {"topics": ["A"], "since": {"A": {"epoch": "", "seq": 1}}}),
        (Subscribe, {"topics": ["A"], "since": {"A": {"epoch": "e", "seq": "1"}}}),
        (Subscribe, {"topics": ["A"], "since": {"A": {"epoch": "e", "seq": 1, "more": 1}}}),
        (Subscribe, {"topics": ["A"], "more": 1}),
        (Unsubscribe, {"topics": []}),
        (ListSubscriptions, {"topics": ["A"]}),
    ],
)
@pytest.mark.behaviour("D49")
def test_invalid_request_is_refused(model: type[Request], body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(body)


def test_request_has_defaults_and_is_frozen() -> None:
    request = Subscribe.model_validate({"topics": ["PRICE:A"]})
    assert (request.interval_ms, request.since) == (0, {})
    with pytest.raises(ValidationError, match="frozen"):
        request.interval_ms = INTERVALS_MS[-1]  # type: ignore[misc]


def test_seven_streams_have_events_and_three_have_symbols() -> None:
    assert {stream.event for stream in Stream} == {
        "price",
        "orderbook",
        "trades",
        "user_data",
        "bot_status",
        "risk_alerts",
        "order_updates",
    }
    assert [stream for stream in Stream if stream.per_symbol] == ["PRICE", "ORDERBOOK", "TRADES"]


async def test_subscribe_reply_matches_the_models() -> None:
    rig = await MarketRig.create()
    link = rig.connect("ann")
    await rig.publishing.publish("PRICE:A", PRICE)
    replies = orjson.loads(orjson.dumps(await rig.subscribe("ann", "PRICE:A", "PRICE:B", "NOISE")))
    known, empty, refused = (TopicReply.model_validate(each) for each in replies.values())

    assert SubscriptionStatus(known.status) is SubscriptionStatus.CONNECTED
    assert known.interval_ms in INTERVALS_MS
    assert known.snapshot == PriceMessage(
        stream=Stream.PRICE,
        symbol="A",
        type="snapshot",
        epoch="e1",
        seq=1,
        prev=0,
        ts=int(START * 1000),
        data=PriceData.model_validate(PRICE),
    )
    assert (known.epoch, known.seq, known.recovered, known.missed) == ("e1", 1, False, ())
    assert (empty.epoch, empty.seq, empty.snapshot) == ("e1", 0, None)
    assert SubscriptionStatus(refused.status) is SubscriptionStatus.ERROR
    assert refused.error is not None
    assert ErrorCode(refused.error.code) is ErrorCode.TOPIC_UNKNOWN
    assert "epoch" not in refused.model_fields_set

    await rig.publishing.publish("PRICE:A", PRICE)
    rig.settle()
    [update] = map(PriceMessage.model_validate, link.messages("price"))
    assert (update.type, update.seq, update.prev) == ("update", 2, 1)
    # Fields about merging are absent if nothing was merged.
    assert not {"merged", "age_ms"} & link.messages("price")[0].keys()
