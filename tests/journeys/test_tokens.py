"""Test tokens over real sockets: validation, expiry and renewal."""

import json

import pytest

from client_sdk.contract import Scope
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import PRICE, running


async def refusal(client: RawClient, payload: object, namespace: str = "/market") -> str:
    """The error code of a refused CONNECT."""
    client.send(f"40{namespace},{json.dumps(payload)}")
    answer = await client.text()
    assert answer.startswith(f"44{namespace},"), answer
    body = json.loads(answer[answer.index("{") :])
    assert body["message"]
    return str(body["data"]["code"])


@pytest.mark.behaviour("C1")
@pytest.mark.behaviour("E1")
@pytest.mark.behaviour("A1")
async def test_valid_token_gets_a_welcome_with_user_and_session() -> None:
    async with running() as node:
        client = await RawClient.open(node.port)
        await client.text()
        welcome = await client.join(
            node.token("bob", org="acme"), namespace="/session", session_id="job:42"
        )
        assert welcome["user_id"] == "bob"
        assert welcome["org"] == "acme"
        assert welcome["session_id"] == "job:42"
        assert welcome["server_time"] == node.clock.time() * 1000
        assert welcome["ping_interval_ms"] == 25_000
        [record] = node.server.clients.registry.connections_of("acme", "bob")
        assert record.connection_id == welcome["connection_id"]
        assert record.session_id == "job:42"
        client.cut()
        await node.until_empty()


@pytest.mark.behaviour("C2")
@pytest.mark.behaviour("E2")
@pytest.mark.behaviour("E3")
@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_bad_token_is_refused_with_its_code(namespace: str) -> None:
    async with running() as node:
        good = node.token()
        cases: dict[str, list[dict[str, object]]] = {
            "auth.missing": [{}, {"token": None}, {"token": ""}],
            "auth.invalid": [
                {"token": "nonsense"},
                {"token": 7},
                {"token": good[:-2]},
                {"token": node.token(audience="another")},
                {"token": node.token(secret="another secret that is long enough too")},
                {"token": "eyJhbGciOiJub25lIn0." + good.split(".")[1] + "."},
            ],
            "auth.expired": [
                {"token": node.token(ttl_seconds=-11)},
                # Within the leeway, but past the grace time of joined clients.
                {"token": node.token(ttl_seconds=-6)},
            ],
        }
        for code, payloads in cases.items():
            for payload in payloads:
                client = await RawClient.open(node.port)
                await client.text()
                assert await refusal(client, payload, namespace) == code, payload
                client.cut()
        await node.until_empty()


async def test_refused_client_gets_no_data_and_is_disconnected() -> None:
    async with running() as node:
        client = await RawClient.open(node.port)
        await client.text()
        for _ in range(3):
            assert await refusal(client, {"token": "x"}) == "auth.invalid"
        await node.server.market.publishing.publish(
            "PRICE:BTCUSDT", {"bid": "1", "ask": "1", "last": "1", "volume": "1"}
        )
        node.pass_time(1.1)
        assert await client.until_closed() == b"\x88\x02\x03\xe8"
        await node.until_empty()


async def test_root_and_unknown_namespaces_are_refused() -> None:
    async with running() as node:
        for namespace in ("/", "/admin"):
            client = await RawClient.open(node.port)
            await client.text()
            prefix = "" if namespace == "/" else f"{namespace},"
            client.send(f"40{prefix}{json.dumps({'token': node.token()})}")
            answer = await client.text()
            assert answer.startswith(f"44{prefix}")
            assert json.loads(answer[answer.index("{") :])["data"]["code"] == "request.invalid"
            client.cut()
        await node.until_empty()


async def test_token_comes_in_a_header_or_by_setting_in_the_query() -> None:
    async with running() as node:
        client = await RawClient.open(
            node.port, headers=f"Authorization: Bearer {node.token('carl')}\r\n"
        )
        await client.text()
        assert (await client.join(None))["user_id"] == "carl"
        client.cut()
        client = await RawClient.open(node.port, query=f"&token={node.token()}")
        await client.text()
        assert await refusal(client, {}) == "auth.missing"
        client.cut()
    async with running({"auth.token_in_query": True}) as node:
        client = await RawClient.open(node.port, query=f"&token={node.token('dora')}")
        await client.text()
        assert (await client.join(None))["user_id"] == "dora"
        client.cut()


@pytest.mark.behaviour("C3")
async def test_anonymous_client_may_only_read_the_open_market() -> None:
    async with running({"auth.market_optional": True}) as node:
        client = await RawClient.connect(node.port, None)
        answer = await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        assert answer["topics"]["PRICE:BTCUSDT"]["status"] == "CONNECTED"
        assert await refusal(client, {}, "/session") == "auth.missing"
        other = await RawClient.open(node.port)
        await other.text()
        assert await refusal(other, {"token": "wrong"}) == "auth.invalid"
        for each in (client, other):
            each.cut()
        await node.until_empty()


async def test_session_outside_the_token_is_refused() -> None:
    async with running() as node:
        tokens = [
            node.token(sessions=["team:*"]),
            node.token(scopes=[Scope.MARKET_READ]),
        ]
        for token in tokens:
            client = await RawClient.open(node.port)
            await client.text()
            payload = {"token": token, "session_id": "job:1"}
            assert await refusal(client, payload, "/session") == "auth.forbidden"
            client.cut()
        await node.until_empty()


async def test_invalid_session_id_is_refused() -> None:
    async with running() as node:
        client = await RawClient.open(node.port)
        await client.text()
        for session_id in (7, "", "-x", "a b", "x" * 129):
            payload = {"token": node.token(), "session_id": session_id}
            if node.residue()["sockets"] == 0 or client.writer.is_closing():
                break
            client.cut()
            client = await RawClient.open(node.port)
            await client.text()
            assert await refusal(client, payload, "/session") == "request.invalid"
        client.cut()
        await node.until_empty()


async def test_client_renews_its_token_after_the_expiry_notice() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token(ttl_seconds=20))
        node.pass_time(0.1)
        assert await client.event() == ("token_expiring", {"expires_in_ms": 19_900})
        answer = await client.call("refresh_token", {"token": node.token(ttl_seconds=100)})
        assert answer == {
            "ok": True,
            "expires_at": int((node.clock.time() + 100) * 1000 // 1000 * 1000),
        }
        node.pass_time(20)
        assert (await client.call("subscriptions", {}))["ok"]
        client.cut()
        await node.until_empty()


async def test_refresh_refuses_the_token_of_another_user() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token("ann"))
        for token in (node.token("bob"), node.token("ann", org="other")):
            answer = await client.call("refresh_token", {"token": token})
            assert answer["error"]["code"] == "auth.forbidden"
        answer = await client.call("refresh_token", {"token": "nonsense"})
        assert answer["error"]["code"] == "auth.invalid"
        client.cut()


FORBIDDEN = {"code": "auth.forbidden", "message": "the token does not allow PRICE:ETH"}


async def test_narrower_token_ends_forbidden_topics_at_once() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        other = await RawClient.connect(node.port, node.token())
        for each in (client, other):
            await each.call("subscribe", {"topics": ["PRICE:BTC", "PRICE:ETH", "USER_DATA"]})
        narrow = node.token(symbols=["BTC*"])
        client.send(f'42/market,7["refresh_token",{{"token":"{narrow}"}}]')
        assert await client.event() == (
            "status",
            {"stream": "PRICE", "symbol": "ETH", "state": "ERROR", "error": FORBIDDEN},
        )
        answer = await client.text()
        reply = json.loads(answer[answer.index("[") :])[0]
        assert reply["topics"] == {"PRICE:ETH": {"status": "ERROR", "error": FORBIDDEN}}
        assert set((await client.call("subscriptions", {}))["topics"]) == {"PRICE:BTC", "USER_DATA"}
        for symbol in ("ETH", "BTC"):
            await node.server.market.publishing.publish(f"PRICE:{symbol}", PRICE)
        event, body = await client.event()
        assert (event, body["symbol"]) == ("price", "BTC")
        # The tokens of the user's other connections still allow it.
        event, body = await other.event()
        assert (event, body["symbol"]) == ("price", "ETH")
        reply = await client.call("refresh_token", {"token": node.token(scopes=[])})
        assert set(reply["topics"]) == {"PRICE:BTC", "USER_DATA"}
        for each in (client, other):
            each.cut()
        await node.until_empty()


async def test_narrower_token_ends_forbidden_sessions_at_once() -> None:
    async with running() as node:
        ann, bob = [await SessionClient.connect(node, each, "room") for each in ("ann", "bob")]
        await ann.call("join", session_id="team:1")
        await ann.next("user_joined")
        narrow = node.token("ann", sessions=["team:*"])
        assert (await ann.call("refresh_token", token=narrow))["ok"]
        closed = await ann.next("session_closed")
        assert (closed["session_id"], closed["reason"]) == ("room", "forbidden")
        # Not lost but gone: no grace period.
        assert (await bob.next("user_left"))["participant_count"] == 1
        await bob.call("send", session_id="room", data={})
        assert await ann.pending_events() == []
        assert (await ann.call("send", session_id="team:1", data={}))["ok"]
        for event in ("send", "signal"):
            reply = await ann.call(event, session_id="room", data={})
            assert reply["error"]["code"] == "session.not_joined"
        ann.cut()
        bob.cut()


async def test_expired_token_disconnects_with_reconnect() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token(ttl_seconds=20))
        node.pass_time(0.1)
        await client.event()
        node.pass_time(20)
        answer = await client.call("subscriptions", {})
        assert answer["ok"], "the grace period is not over"
        node.pass_time(5)
        event, goodbye = await client.event()
        assert (event, goodbye["code"], goodbye["reconnect"]) == ("goodbye", "auth.expired", True)
        # No DISCONNECT packet: a stock client does not reconnect after one.
        assert await client.until_closed() == b"\x88\x02\x03\xe8"
        await node.until_empty()


async def test_token_expiry_in_both_namespaces_disconnects_once() -> None:
    async with running() as node:
        token = node.token(ttl_seconds=10)
        client = await RawClient.connect(node.port, token)
        await client.join(token, namespace="/session")
        node.pass_time(0.1)
        node.pass_time(16)
        ended = await client.until_closed()
        assert ended.count(b"auth.expired") == 2, "a goodbye in each namespace"
        await node.until_empty()


async def test_one_refresh_renews_both_namespaces() -> None:
    async with running({"ping.interval_seconds": 200}) as node:
        token = node.token(ttl_seconds=20)
        client = await RawClient.connect(node.port, token)
        await client.join(token, namespace="/session", session_id="room")
        node.pass_time(0.1)
        assert {(await client.event())[0] for _ in range(2)} == {"token_expiring"}
        fresh = node.token(ttl_seconds=100)
        assert (await client.call("refresh_token", {"token": fresh}))["ok"]
        node.pass_time(40)
        assert (await client.call("subscriptions", {}))["ok"]
        assert (await client.call("leave", {"session_id": "room"}, namespace="/session"))["ok"]
        narrow = node.token(ttl_seconds=100, sessions=["team:*"])
        await client.call("join", {"session_id": "room"}, namespace="/session")
        client.send(f"42/market,7{json.dumps(['refresh_token', {'token': narrow}])}")
        assert await client.event() == (
            "session_closed",
            {"session_id": "room", "reason": "forbidden", "ts": int(node.clock.time() * 1000)},
        )
        client.cut()


async def test_refresh_leaves_a_namespace_with_other_rights_alone() -> None:
    async with running() as node:
        reading = node.token(ttl_seconds=1000, scopes=[Scope.MARKET_READ])
        joining = node.token(ttl_seconds=1000, scopes=[Scope.SESSION_JOIN])
        client = await RawClient.connect(node.port, reading)
        await client.join(joining, namespace="/session", session_id="room")
        assert (await client.call("refresh_token", {"token": reading}))["ok"]
        reply = await client.call("participants", {"session_id": "room"}, namespace="/session")
        assert reply["participant_count"] == 1
        client.cut()


async def test_no_token_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with running() as node:
        token = node.token()
        client = await RawClient.connect(node.port, token)
        await client.call("refresh_token", {"token": token + "x"})
        other = await RawClient.open(node.port)
        await other.text()
        await refusal(other, {"token": token[:-1]})
        client.send("4[[")
        await client.until_closed()
        other.cut()
        await node.until_empty()
    assert token[:-1] not in caplog.text
    assert token.split(".")[1] not in caplog.text


async def test_fresh_token_is_valid_if_the_clock_of_the_server_is_behind() -> None:
    async with running() as node:
        node.clock.advance(10)
        fresh = node.token()
        node.clock.advance(-10)
        client = await RawClient.connect(node.port, fresh)
        client.cut()
        await node.until_empty()


async def test_refresh_by_a_token_past_its_grace_time_is_refused() -> None:
    async with running({"auth.leeway_seconds": 10, "auth.expiry_grace_seconds": 5}) as node:
        client = await RawClient.connect(node.port, node.token())
        token = node.token(ttl_seconds=1)
        node.clock.advance(7)
        reply = await client.call("refresh_token", {"token": token})
        assert reply["error"]["code"] == "auth.expired"
        node.pass_time(0)
        assert (await client.call("subscriptions", {}))["ok"]
        client.cut()
