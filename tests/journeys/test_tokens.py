"""Tokens over real sockets: who is let in, for how long, and how a token is renewed."""

import json

import pytest

from client_sdk.contract import Scope
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import running


async def refusal(client: RawClient, payload: object, namespace: str = "/market") -> str:
    """The code with which a CONNECT is refused."""
    client.send(f"40{namespace},{json.dumps(payload)}")
    answer = await client.text()
    assert answer.startswith(f"44{namespace},"), answer
    body = json.loads(answer[answer.index("{") :])
    assert body["message"]
    return str(body["data"]["code"])


@pytest.mark.behaviour("C1")
@pytest.mark.behaviour("E1")
@pytest.mark.behaviour("A1")
async def test_a_valid_token_is_welcomed_with_its_user_and_session() -> None:
    async with running() as floor:
        client = await RawClient.open(floor.port)
        await client.text()
        welcome = await client.join(
            floor.token("bob", org="acme"), namespace="/session", session_id="job:42"
        )
        assert welcome["user_id"] == "bob"
        assert welcome["org"] == "acme"
        assert welcome["session_id"] == "job:42"
        assert welcome["server_time"] == floor.clock.time() * 1000
        assert welcome["ping_interval_ms"] == 25_000
        [record] = floor.server.registry.connections_of("acme", "bob")
        assert record.connection_id == welcome["connection_id"]
        assert record.session_id == "job:42"
        client.cut()
        await floor.until_empty()


@pytest.mark.behaviour("C2")
@pytest.mark.behaviour("E2")
@pytest.mark.behaviour("E3")
@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_a_missing_wrong_or_expired_token_is_refused_with_its_code(namespace: str) -> None:
    async with running() as floor:
        good = floor.token()
        cases: dict[str, list[dict[str, object]]] = {
            "auth.missing": [{}, {"token": None}, {"token": ""}],
            "auth.invalid": [
                {"token": "nonsense"},
                {"token": 7},
                {"token": good[:-2]},
                {"token": floor.token(audience="another")},
                {"token": floor.token(secret="another secret that is long enough too")},
                {"token": "eyJhbGciOiJub25lIn0." + good.split(".")[1] + "."},
            ],
            "auth.expired": [{"token": floor.token(ttl_seconds=0)}],
        }
        for code, payloads in cases.items():
            for payload in payloads:
                client = await RawClient.open(floor.port)
                await client.text()
                assert await refusal(client, payload, namespace) == code, payload
                client.cut()
        await floor.until_empty()


async def test_a_refused_client_is_sent_nothing_and_is_shown_out_when_it_keeps_asking() -> None:
    async with running() as floor:
        client = await RawClient.open(floor.port)
        await client.text()
        for _ in range(3):
            assert await refusal(client, {"token": "x"}) == "auth.invalid"
        await floor.server.publishing.publish(
            "PRICE:BTCUSDT", {"bid": "1", "ask": "1", "last": "1", "volume": "1"}
        )
        floor.pass_time(1.1)
        assert await client.until_closed() == b"\x88\x02\x03\xe8"
        await floor.until_empty()


async def test_the_root_and_unknown_namespaces_are_closed_to_everybody() -> None:
    async with running() as floor:
        for namespace in ("/", "/admin"):
            client = await RawClient.open(floor.port)
            await client.text()
            prefix = "" if namespace == "/" else f"{namespace},"
            client.send(f"40{prefix}{json.dumps({'token': floor.token()})}")
            answer = await client.text()
            assert answer.startswith(f"44{prefix}")
            assert json.loads(answer[answer.index("{") :])["data"]["code"] == "request.invalid"
            client.cut()
        await floor.until_empty()


async def test_the_token_may_come_as_a_header_and_only_by_a_setting_in_the_query() -> None:
    async with running() as floor:
        client = await RawClient.open(
            floor.port, headers=f"Authorization: Bearer {floor.token('carl')}\r\n"
        )
        await client.text()
        assert (await client.join(None))["user_id"] == "carl"
        client.cut()
        client = await RawClient.open(floor.port, query=f"&token={floor.token()}")
        await client.text()
        assert await refusal(client, {}) == "auth.missing"
        client.cut()
    async with running({"auth.token_in_query": True}) as floor:
        client = await RawClient.open(floor.port, query=f"&token={floor.token('dora')}")
        await client.text()
        assert (await client.join(None))["user_id"] == "dora"
        client.cut()


@pytest.mark.behaviour("C3")
async def test_where_market_data_is_open_anyone_may_listen_and_no_more() -> None:
    async with running({"auth.market_optional": True}) as floor:
        client = await RawClient.connect(floor.port, None)
        answer = await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        assert answer["topics"]["PRICE:BTCUSDT"]["status"] == "CONNECTED"
        assert await refusal(client, {}, "/session") == "auth.missing"
        other = await RawClient.open(floor.port)
        await other.text()
        assert await refusal(other, {"token": "wrong"}) == "auth.invalid"
        for each in (client, other):
            each.cut()
        await floor.until_empty()


async def test_a_session_that_the_token_does_not_allow_is_refused() -> None:
    async with running() as floor:
        tokens = [
            floor.token(sessions=["team:*"]),
            floor.token(scopes=[Scope.MARKET_READ]),
        ]
        for token in tokens:
            client = await RawClient.open(floor.port)
            await client.text()
            payload = {"token": token, "session_id": "job:1"}
            assert await refusal(client, payload, "/session") == "auth.forbidden"
            client.cut()
        await floor.until_empty()


async def test_a_session_id_of_a_wrong_type_or_pattern_is_refused() -> None:
    async with running() as floor:
        client = await RawClient.open(floor.port)
        await client.text()
        for session_id in (7, "", "-x", "a b", "x" * 129):
            payload = {"token": floor.token(), "session_id": session_id}
            if floor.residue()["sockets"] == 0 or client.writer.is_closing():
                break
            client.cut()
            client = await RawClient.open(floor.port)
            await client.text()
            assert await refusal(client, payload, "/session") == "request.invalid"
        client.cut()
        await floor.until_empty()


async def test_a_client_is_told_before_its_token_ends_and_may_go_on_with_a_new_one() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token(ttl_seconds=20))
        floor.pass_time(0.1)
        assert await client.event() == ("token_expiring", {"expires_in_ms": 19_900})
        answer = await client.call("refresh_token", {"token": floor.token(ttl_seconds=100)})
        assert answer == {
            "ok": True,
            "expires_at": int((floor.clock.time() + 100) * 1000 // 1000 * 1000),
        }
        floor.pass_time(20)
        assert (await client.call("subscriptions", {}))["ok"]
        client.cut()
        await floor.until_empty()


async def test_another_users_token_renews_nothing() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token("ann"))
        for token in (floor.token("bob"), floor.token("ann", org="other")):
            answer = await client.call("refresh_token", {"token": token})
            assert answer["error"]["code"] == "auth.forbidden"
        answer = await client.call("refresh_token", {"token": "nonsense"})
        assert answer["error"]["code"] == "auth.invalid"
        client.cut()


async def test_a_token_that_ended_ends_the_connection_so_that_the_client_comes_back() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token(ttl_seconds=20))
        floor.pass_time(0.1)
        await client.event()
        floor.pass_time(20)
        answer = await client.call("subscriptions", {})
        assert answer["ok"], "within the grace time"
        floor.pass_time(5)
        event, goodbye = await client.event()
        assert (event, goodbye["code"], goodbye["reconnect"]) == ("goodbye", "auth.expired", True)
        # No DISCONNECT packet: a stock client would stay away after one.
        assert await client.until_closed() == b"\x88\x02\x03\xe8"
        await floor.until_empty()


async def test_a_token_that_ends_in_both_namespaces_at_once_ends_the_connection_once() -> None:
    async with running() as floor:
        token = floor.token(ttl_seconds=10)
        client = await RawClient.connect(floor.port, token)
        await client.join(token, namespace="/session")
        floor.pass_time(0.1)
        floor.pass_time(16)
        ended = await client.until_closed()
        assert ended.count(b"auth.expired") == 2, "a goodbye in each namespace"
        await floor.until_empty()


async def test_no_token_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with running() as floor:
        token = floor.token()
        client = await RawClient.connect(floor.port, token)
        await client.call("refresh_token", {"token": token + "x"})
        other = await RawClient.open(floor.port)
        await other.text()
        await refusal(other, {"token": token[:-1]})
        client.send("4[[")
        await client.until_closed()
        other.cut()
        await floor.until_empty()
    assert token[:-1] not in caplog.text
    assert token.split(".")[1] not in caplog.text
