"""The generated contract describes what the server really accepts and sends."""

import json
from typing import Any

from jsonschema import Draft202012Validator

from client_sdk.contract import Scope
from client_sdk.contract.events import EVENTS, MARKET_EVENTS, SESSION_EVENTS, NamespaceEvents
from client_sdk.contract.formats import json_schema
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import ALL_SCOPES, PRICE, running

BOOK = {"bids": [["1.00", "5"]], "asks": [["1.02", "3"]]}
TRADE = {"trades": [{"id": 1, "price": "1.01", "qty": "2", "side": "buy", "ts": 1}]}


async def test_contract_lists_the_routes_of_the_server() -> None:
    async with running() as server:
        assert {
            handler.namespace: {name: route.model for name, route in handler._routes.items()}
            for handler in server.server.namespaces
        } == {
            events.namespace: {each.name: each.payload for each in events.from_client}
            for events in EVENTS
        }


class Described:
    """Checks payloads and replies against the JSON Schema."""

    def __init__(self, events: NamespaceEvents, client: RawClient) -> None:
        self._events = events
        self._client = client
        self._schema = json_schema("1")
        self.seen: set[str] = set()

    def check(self, name: str, value: object) -> None:
        """Check a value against a model, of which it has no fields but the described ones."""
        schema = {**self._schema, **_strict(self._schema["$defs"][name])}
        schema["$defs"] = {key: _strict(each) for key, each in self._schema["$defs"].items()}
        Draft202012Validator(schema).validate(value)

    async def call(self, name: str, payload: dict[str, object]) -> dict[str, Any]:
        """Send an event; check it, the events before the reply, and the reply."""
        [event] = [each for each in self._events.from_client if each.name == name]
        self.check(event.payload.__name__, payload)
        self._client.send(f"42{self._events.namespace},7{json.dumps([name, payload])}")
        while not (text := await self._client.text()).startswith("43"):
            self._take(text)
        [reply] = json.loads(text[text.index("[") :])
        self.check(event.reply.__name__, reply)
        assert isinstance(reply, dict)
        return reply

    async def receive_until(self, name: str) -> None:
        """Check the events up to one of this name."""
        while self._take(await self._client.text()) != name:
            pass

    def _take(self, text: str) -> str:
        if text == "2":
            self._client.send("3")
            return ""
        name, payload = json.loads(text[text.index("[") :])
        [event] = [each for each in self._events.to_client if each.name == name]
        kinds = [model.__name__ for model in event.payloads]
        self.check(kinds[-1] if payload.get("type") == "heartbeat" else kinds[0], payload)
        self.seen.add(name)
        return str(name)


def _strict(node: Any) -> Any:
    """The same schema without room for fields that it does not name."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict):
        strict.setdefault("additionalProperties", False)
    return strict


async def test_market_sends_what_the_contract_describes() -> None:
    async with running({"ping.interval_seconds": 200}) as server:
        client = await RawClient.connect(server.port, server.token(ttl_seconds=100))
        described = Described(MARKET_EVENTS, client)
        topics = ["PRICE:A", "ORDERBOOK:A", "TRADES:A", "ORDER_UPDATES", "PRICE:?"]
        messages: list[dict[str, object]] = [
            {"topic": "PRICE:A", "data": PRICE},
            {"topic": "ORDERBOOK:A", "data": BOOK, "type": "snapshot"},
            {"topic": "TRADES:A", "data": TRADE},
            {"topic": "ORDER_UPDATES", "data": {"order_id": 1}, "user": "ann"},
            {"topic": "nothing", "data": {}},
        ]
        await described.call("publish", {"messages": messages})
        assert not (await described.call("publish", {"messages": messages}))["ok"]
        since = {"TRADES:A": {"epoch": "e", "seq": 1}}
        reply = await described.call("subscribe", {"topics": topics, "since": since})
        assert reply["topics"]["ORDERBOOK:A"]["snapshot"] is not None
        await described.call("publish", {"messages": messages[:4]})
        await described.call("subscriptions", {})
        await described.call("subscribe", {"topics": ["PRICE:A"], "since": {}, "interval_ms": 50})
        views = ["PRICE:*", "ORDERBOOK:A@5/0.5", "TRADES:A@1m"]
        reply = await described.call("subscribe", {"topics": views, "last": 1})
        assert reply["topics"]["TRADES:A@1m"]["snapshot"]["data"]["bars"]
        bars = await described.call("candles", {"symbol": "A", "interval": "1m"})
        assert len(bars["bars"]) == 1
        await described.call("instruments", {"match": "A*", "follow": True})
        await server.server.market.instruments.put("A", {"base": "AA", "status": "CLOSED"})
        await described.receive_until("instrument")
        await server.server.market.instruments.put("A", {"status": "OPEN"})
        for _ in range(20):
            server.pass_time(1)
        await described.receive_until("status")
        token = server.token(ttl_seconds=60, symbols=["B*"])
        reply = await described.call("refresh_token", {"token": token})
        assert reply["topics"]["PRICE:A"]["status"] == "ERROR"
        assert not (await described.call("refresh_token", {"token": "no"}))["ok"]
        await described.call("unsubscribe", {"topics": ["PRICE:A"]})
        client.send(f"42/market,{json.dumps(['subscribe', {}])}")
        await described.receive_until("error")
        for _ in range(70):
            server.pass_time(1)
        await described.receive_until("goodbye")
        client.cut()
        unseen = {each.name for each in MARKET_EVENTS.to_client} - described.seen
        assert unseen == {"bot_status", "reconnect_hint", "risk_alerts", "user_data", "welcome"}


async def test_session_sends_what_the_contract_describes() -> None:
    scopes = (*ALL_SCOPES, Scope.SESSION_MODERATE)
    async with running() as server:
        ann = await RawClient.connect(
            server.port, server.token(scopes=scopes), namespace="/session"
        )
        bob = await RawClient.connect(server.port, server.token("bob"), namespace="/session")
        described = Described(SESSION_EVENTS, ann)
        other = Described(SESSION_EVENTS, bob)
        session: dict[str, object] = {"session_id": "job:1"}
        assert not (await described.call("send", {**session, "data": {}}))["ok"]
        await described.call("join", {**session, "metadata": {"name": "x"}})
        await other.call("join", session)
        await other.call("signal", {**session, "data": {"typing": True}})
        await described.receive_until("signal")
        await described.call("send", {**session, "data": {"text": "x"}, "id": "1"})
        await described.call("history", {**session, "limit": 5})
        await described.call("participants", session)
        await described.call("join", {**session, "since": {"epoch": "e", "seq": 0}})
        await other.call("leave", session)
        await described.receive_until("user_left")
        await other.call("join", session)
        await described.call("kick", {**session, "user_id": "bob"})
        await server.server.sessions.notifications.notify(
            "default", "ann", "order.filled", {"id": 1}
        )
        await described.receive_until("notification")
        await described.call("refresh_token", {"token": server.token(scopes=scopes)})
        await described.call("close", session)
        unseen = {each.name for each in SESSION_EVENTS.to_client} - described.seen
        assert unseen == {"error", "goodbye", "reconnect_hint", "token_expiring", "welcome"}
        bob.cut()
        ann.cut()
