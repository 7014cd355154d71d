"""Publishing and reading topics by HTTP."""

from client_sdk.contract import Scope
from tests.kit.server.api import StartApi

PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}


def message(topic: str = "PRICE:BTCUSDT", **fields: object) -> dict[str, object]:
    return {"topic": topic, "data": PRICE, **fields}


def trades(*ids: int) -> dict[str, object]:
    sold = [{"id": each, "price": "1", "qty": "2", "side": "buy", "ts": each} for each in ids]
    return {"topic": "TRADES:BTCUSDT", "data": {"trades": sold}}


async def test_published_message_is_the_snapshot_of_its_topic(start_api: StartApi) -> None:
    api = await start_api()
    published = await api.call("POST", "/publish", json={"messages": [message()]})
    [position] = published["positions"]
    topic = await api.call("GET", "/topics/PRICE:BTCUSDT")
    assert position == {"epoch": topic["epoch"], "seq": 1}
    assert topic["state"] == "LIVE"
    assert topic["subscribers"] == 0
    assert topic["incomplete"] == []
    assert topic["snapshot"]["data"] == PRICE
    assert topic["snapshot"]["type"] == "snapshot"


async def test_refused_message_stops_no_other_message(start_api: StartApi) -> None:
    api = await start_api()
    messages = [message(), message("NOPE:X"), message("PRICE:ETHUSDT")]
    answer = await api.call("POST", "/publish", status=400, json={"messages": messages})
    assert answer["error"]["code"] == "topic.unknown"
    assert answer["error"]["details"]["index"] == 1
    assert [each.get("seq") for each in answer["positions"]] == [1, None, 1]
    assert (await api.call("GET", "/topics/PRICE:ETHUSDT"))["seq"] == 1


async def test_book_that_contradicts_its_checksum_is_a_conflict(start_api: StartApi) -> None:
    api = await start_api()
    book = {"bids": [["1", "2"]], "asks": [], "checksum": 7}
    message = {"topic": "ORDERBOOK:BTCUSDT", "type": "snapshot", "data": book}
    body = {"messages": [message]}
    assert await api.refusal("POST", "/publish", 409, json=body) == "request.invalid"


async def test_publishing_needs_its_scope(start_api: StartApi) -> None:
    api = await start_api()
    token = api.token(scopes=[Scope.MARKET_READ, Scope.ADMIN])
    body = {"messages": [message()]}
    assert await api.refusal("POST", "/publish", 403, json=body, token=token) == "auth.forbidden"


async def test_retry_with_an_idempotency_key_publishes_nothing_new(
    start_api: StartApi,
) -> None:
    api = await start_api()
    body = {"messages": [message(), message("PRICE:ETHUSDT")]}
    key = {"Idempotency-Key": "order-7"}
    first = await api.call("POST", "/publish", json=body, headers=key)
    again = await api.call("POST", "/publish", json=body, headers=key)
    assert again == first
    changed = {**PRICE, "last": "9"}
    other = {"messages": [message(data=changed), message("PRICE:ETHUSDT", data=changed)]}
    assert await api.refusal("POST", "/publish", 409, json=other, headers=key) == "publish.conflict"
    assert (await api.call("GET", "/topics/PRICE:BTCUSDT"))["seq"] == 1


async def test_idempotency_key_stands_for_the_id_of_a_single_message(
    start_api: StartApi,
) -> None:
    api = await start_api()
    first = await api.call("POST", "/publish", json={"messages": [message(id="a")]})
    again = await api.call(
        "POST", "/publish", json={"messages": [message()]}, headers={"Idempotency-Key": "a"}
    )
    assert again == first


async def test_private_topic_is_that_of_the_tokens_user(start_api: StartApi) -> None:
    api = await start_api()
    order = {"topic": "ORDER_UPDATES", "user": "ann", "data": {"order_id": 7}}
    await api.call("POST", "/publish", json={"messages": [order]})
    topic = await api.call("GET", "/topics/ORDER_UPDATES", token=api.operator("ann"))
    assert topic["snapshot"]["data"] == {"order_id": 7}
    for stranger in (api.operator("bob"), api.operator("ann", org="other")):
        code = await api.refusal("GET", "/topics/ORDER_UPDATES", 404, token=stranger)
        assert code == "topic.unknown"


async def test_topic_without_messages_is_unknown(start_api: StartApi) -> None:
    api = await start_api()
    for path in ("/topics/PRICE:BTCUSDT", "/topics/PRICE:BTCUSDT/history", "/topics/NOPE"):
        assert await api.refusal("GET", path, 404) == "topic.unknown"
    assert api.residue()["channels"] == 0


async def test_topic_outside_the_tokens_symbols_is_forbidden(start_api: StartApi) -> None:
    api = await start_api()
    await api.call("POST", "/publish", json={"messages": [message()]})
    narrow = api.operator(symbols=["ETH*"])
    for path in ("/topics/PRICE:BTCUSDT", "/topics/PRICE:BTCUSDT/history"):
        assert await api.refusal("GET", path, 403, token=narrow) == "auth.forbidden"


async def test_symbol_with_a_slash_is_readable_encoded_and_plain(
    start_api: StartApi,
) -> None:
    api = await start_api()
    await api.call("POST", "/publish", json={"messages": [message("PRICE:BTC/USDT")]})
    for name in ("PRICE:BTC%2FUSDT", "PRICE:BTC/USDT"):
        assert (await api.call("GET", f"/topics/{name}"))["topic"] == "PRICE:BTC/USDT"
        assert len((await api.call("GET", f"/topics/{name}/history"))["messages"]) == 1


async def test_history_is_paged_by_position(start_api: StartApi) -> None:
    api = await start_api()
    body = {"messages": [trades(each) for each in range(5)]}
    await api.call("POST", "/publish", json=body)
    seen: list[int] = []
    after = 0
    while True:
        page = await api.call(
            "GET", "/topics/TRADES:BTCUSDT/history", params={"after_seq": after, "limit": 2}
        )
        seen += [each["seq"] for each in page["messages"]]
        assert page["complete"]
        if not page["has_more"]:
            break
        after = seen[-1]
    assert seen == [1, 2, 3, 4, 5]
    newest = await api.call("GET", "/topics/TRADES:BTCUSDT/history", params={"limit": 2})
    assert [each["seq"] for each in newest["messages"]] == [4, 5]


async def test_history_says_that_messages_are_gone(start_api: StartApi) -> None:
    api = await start_api(history__messages=2)
    await api.call("POST", "/publish", json={"messages": [trades(each) for each in range(5)]})
    page = await api.call("GET", "/topics/TRADES:BTCUSDT/history", params={"after_seq": 1})
    assert not page["complete"]
    assert [each["seq"] for each in page["messages"]] == [4, 5]


async def test_history_of_a_merged_stream_is_its_snapshot(start_api: StartApi) -> None:
    api = await start_api()
    await api.call("POST", "/publish", json={"messages": [message(), message()]})
    path = "/topics/PRICE:BTCUSDT/history"
    page = await api.call("GET", path, params={"after_seq": 0})
    assert [each["seq"] for each in page["messages"]] == [2]
    assert page["messages"][0]["type"] == "snapshot"
    assert (await api.call("GET", path, params={"after_seq": 2}))["messages"] == []


async def test_messages_of_a_batch_count_against_the_request_rate(
    start_api: StartApi,
) -> None:
    api = await start_api(limits__requests_per_second=1)
    await api.call("POST", "/publish", json={"messages": [message()] * 200})
    body = {"messages": [message()]}
    assert await api.refusal("POST", "/publish", 429, json=body) == "limit.rate"
    api.clock.advance(10)
    await api.call("POST", "/publish", json=body)
