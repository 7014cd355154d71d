"""Instruments by HTTP."""

from client_sdk.contract import Scope
from tests.kit.server.api import StartApi


async def test_put_instrument_is_listed_and_seen_by_followers(start_api: StartApi) -> None:
    api = await start_api()
    ann = await api.join_market("ann")
    reply = await ann.call("instruments", {"match": "BTC*", "follow": True})
    assert reply == {"ok": True, "instruments": []}
    fields = {"base": "BTC", "quote": "USDT", "tick_size": "0.01", "venue": "X"}
    put = await api.call("PUT", "/instruments/BTC/USDT:USDT", json=fields)
    expected = {**fields, "symbol": "BTC/USDT:USDT", "status": "OPEN", "streams": []}
    assert put == expected
    await api.call("PUT", "/instruments/BTC/USDT:USDT", json={"status": "HALTED", "venue": None})
    del expected["venue"]
    expected["status"] = "HALTED"
    assert await api.call("GET", "/instruments/BTC/USDT:USDT") == expected
    assert await api.call("GET", "/instruments?match=BTC*") == {"instruments": [expected]}
    events = [await ann.event() for _ in range(2)]
    assert [name for name, _ in events] == ["instrument", "instrument"]
    assert events[1][1] == expected


async def test_instruments_are_paged(start_api: StartApi) -> None:
    api = await start_api()
    for symbol in ("A", "B", "C"):
        await api.call("PUT", f"/instruments/{symbol}", json={"base": symbol})
    page = await api.call("GET", "/instruments?limit=2")
    assert [each["symbol"] for each in page["instruments"]] == ["A", "B"]
    rest = await api.call("GET", f"/instruments?limit=2&cursor={page['next_cursor']}")
    assert [each["symbol"] for each in rest["instruments"]] == ["C"]
    assert "next_cursor" not in rest


async def test_instrument_needs_a_right_symbol_and_token(start_api: StartApi) -> None:
    api = await start_api()
    assert await api.refusal("GET", "/instruments/NONE", 404) == "topic.unknown"
    await api.refusal("PUT", "/instruments/A", 400, json={"tick_size": "0"})
    reader = api.token("bob", scopes=(Scope.MARKET_READ,))
    path = "/instruments/A"
    assert await api.refusal("PUT", path, 403, json={}, token=reader) == "auth.forbidden"
    narrowed = api.operator("eve", symbols=["B*"])
    assert await api.refusal("PUT", path, 403, json={}, token=narrowed) == "auth.forbidden"
    assert await api.refusal("GET", path, 403, token=narrowed) == "auth.forbidden"


async def test_candles_are_read_by_interval_and_time(start_api: StartApi) -> None:
    api = await start_api()
    trade = {"id": 1, "price": "5", "qty": "0.5", "side": "buy"}
    trades = {"trades": [{**trade, "ts": ts} for ts in (0, 60_000, 120_000)]}
    messages = [{"topic": "TRADES:BTC/USDT", "data": trades}]
    await api.call("POST", "/publish", json={"messages": messages})
    path = "/candles/BTC/USDT"
    found = await api.call("GET", f"{path}?interval=1m&limit=2")
    assert (found["symbol"], found["interval"]) == ("BTC/USDT", "1m")
    assert [(bar["t"], bar["closed"]) for bar in found["bars"]] == [
        (60_000, True),
        (120_000, False),
    ]
    early = await api.call("GET", f"{path}?interval=1m&before=60000")
    assert [bar["t"] for bar in early["bars"]] == [0]
    assert await api.refusal("GET", f"{path}?interval=2m", 404) == "topic.unknown"
    narrowed = api.token("eve", symbols=["A*"])
    assert await api.refusal("GET", f"{path}?interval=1m", 403, token=narrowed) == "auth.forbidden"


async def test_halted_symbol_shows_in_its_topics(start_api: StartApi) -> None:
    api = await start_api()
    price = {"bid": "1", "ask": "2", "last": "1", "volume": "1"}
    messages = [{"topic": "PRICE:A", "data": price}]
    await api.call("POST", "/publish", json={"messages": messages})
    await api.call("PUT", "/instruments/A", json={"status": "HALTED"})
    assert (await api.call("GET", "/topics/PRICE:A"))["state"] == "HALTED"
