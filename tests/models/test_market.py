"""The contract's models: what they take, what they refuse, and that the server speaks them."""

import orjson
import pytest
from pydantic import ValidationError

from client_sdk.contract import (
    INTERVALS_MS,
    ConnectAuth,
    ErrorCode,
    ListSubscriptions,
    Message,
    PriceData,
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
def test_a_decimal_stays_the_text_that_was_sent(text: str) -> None:
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
def test_what_some_language_would_not_read_as_a_number_is_no_decimal(text: str) -> None:
    with pytest.raises(ValidationError):
        PriceData.model_validate({**PRICE, "bid": text})


def test_publishers_may_add_fields_to_a_price() -> None:
    extra = {"venue": {"name": "XETR"}}
    assert PriceData.model_validate({**PRICE, **extra}).model_dump() == {**PRICE, **extra}


@pytest.mark.parametrize(
    "session_id",
    ["", "a\n", "-a", ":a", "a b", "a/b", "é", "a" * 129, 7, ["a"], True],
)
@pytest.mark.behaviour("D49")
def test_what_is_no_session_id_is_refused(session_id: object) -> None:
    with pytest.raises(ValidationError):
        ConnectAuth.model_validate({"session_id": session_id})


@pytest.mark.parametrize("session_id", ["job:42", "thread:7", "0", "a" * 128, "A_.:-"])
def test_a_session_id_is_taken_beside_what_other_clients_send(session_id: str) -> None:
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
def test_a_request_that_is_not_exactly_what_it_should_be_is_refused(
    model: type[Request], body: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(body)


def test_a_request_may_leave_out_what_has_a_default_and_cannot_be_changed() -> None:
    request = Subscribe.model_validate({"topics": ["PRICE:A"]})
    assert (request.interval_ms, request.since) == (0, {})
    with pytest.raises(ValidationError, match="frozen"):
        request.interval_ms = INTERVALS_MS[-1]  # type: ignore[misc]


def test_the_seven_streams_have_their_events_and_three_of_them_a_symbol() -> None:
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


async def test_the_answer_to_a_subscription_is_what_the_models_say() -> None:
    desk = await MarketRig.create()
    link = desk.connect("ann")
    await desk.publishing.publish("PRICE:A", PRICE)
    answers = orjson.loads(orjson.dumps(await desk.subscribe("ann", "PRICE:A", "PRICE:B", "NOISE")))
    known, quiet, refused = (TopicReply.model_validate(each) for each in answers.values())

    assert known.status is SubscriptionStatus.CONNECTED
    assert known.interval_ms in INTERVALS_MS
    assert known.snapshot == Message(
        stream=Stream.PRICE,
        symbol="A",
        type="snapshot",
        epoch="e1",
        seq=1,
        prev=0,
        ts=int(START * 1000),
        data=dict(PRICE),
    )
    assert (known.epoch, known.seq, known.recovered, known.missed) == ("e1", 1, False, ())
    assert (quiet.epoch, quiet.seq, quiet.snapshot) == ("e1", 0, None)
    assert refused.status is SubscriptionStatus.ERROR
    assert refused.error is not None
    assert refused.error.code is ErrorCode.TOPIC_UNKNOWN
    assert refused.epoch is None

    await desk.publishing.publish("PRICE:A", PRICE)
    desk.settle()
    [update] = map(Message.model_validate, link.messages("price"))
    assert (update.type, update.seq, update.prev) == ("update", 2, 1)
    # Nothing was merged, so nothing says so.
    assert not {"merged", "age_ms"} & link.messages("price")[0].keys()
