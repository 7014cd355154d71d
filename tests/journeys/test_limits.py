"""Test limits over real sockets: exact, released, and reported to the refused client."""

import asyncio
import json

import aiohttp
import pytest

from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running


async def try_connect(node: RunningServer, user: str = "ann") -> tuple[str, RawClient | None]:
    """Connect; return "ok" and the client, or the error code and None."""
    client = await RawClient.open(node.port)
    await client.text()
    client.send(f"40/market,{json.dumps({'token': node.token(user), 'recovery': False})}")
    answer = await client.text()
    if answer.startswith("44/market,"):
        client.cut()
        return str(json.loads(answer[answer.index("{") :])["data"]["code"]), None
    await client.event()
    return "ok", client


@pytest.mark.behaviour("C4")
@pytest.mark.behaviour("C5")
@pytest.mark.parametrize(
    "limit", ["limits.connections", "limits.connections_per_ip", "limits.connections_per_user"]
)
async def test_connection_limit_is_exact_for_simultaneous_connects(limit: str) -> None:
    async with running({limit: 7}) as node:
        results = await asyncio.gather(*(try_connect(node) for _ in range(20)))
        codes = sorted(code for code, _ in results)
        assert codes == ["limit.connections"] * 13 + ["ok"] * 7
        inside = [client for _, client in results if client is not None]
        inside.pop().cut()
        await until(lambda: node.residue()["slots"] == 6)
        code, client = await try_connect(node)
        assert (code, client is not None) == ("ok", True)
        assert (await try_connect(node))[0] == "limit.connections"
        for each in (*inside, client):
            if each is not None:
                each.cut()
        await node.until_empty()


async def test_refused_client_is_disconnected() -> None:
    async with running({"limits.connections": 1}) as node:
        _, inside = await try_connect(node)
        assert inside is not None
        silent = await RawClient.open(node.port)
        asking = await RawClient.open(node.port)
        for client in (silent, asking):
            await client.text()
        asking.send("40/market,{}")
        assert "limit.connections" in await asking.text()
        node.pass_time(1.1)
        await asking.until_closed()
        node.pass_time(4)
        await silent.until_closed()
        inside.cut()
        await node.until_empty()


async def test_connects_over_the_rate_are_refused() -> None:
    async with running({"limits.connects_per_second_per_ip": 5}) as node:
        results = [await try_connect(node) for _ in range(12)]
        assert [code for code, _ in results] == ["ok"] * 10 + ["limit.rate"] * 2
        node.clock.advance(1)
        code, client = await try_connect(node)
        assert code == "ok"
        for each in (*(each for _, each in results), client):
            if each is not None:
                each.cut()
        await node.until_empty()


async def test_too_many_refused_connections_get_429() -> None:
    async with running({"limits.connects_per_second": 1}) as node:
        # Two are accepted, and 256 more stay open to get their error.
        clients = [await RawClient.open(node.port) for _ in range(2 + 256)]
        with pytest.raises(ConnectionError, match=r"429(.|\n)*Retry-After(.|\n)*limit.rate"):
            await RawClient.open(node.port)
        for client in clients:
            client.cut()
        await node.until_empty()
        code, _ = await try_connect(node)
        assert code == "limit.rate", "after they closed, the next one gets an error again"
        await node.until_empty()


async def test_refused_connect_says_when_to_come_back() -> None:
    async with running({"limits.connections_per_user": 1}) as node:
        _, client = await try_connect(node)
        for user, code in (("ann", "limit.connections"), ("eve", "auth.invalid")):
            refused = await RawClient.open(node.port)
            await refused.text()
            token = node.token(user) if user == "ann" else "rubbish"
            refused.send(f"40/market,{json.dumps({'token': token})}")
            answer = await refused.text()
            data = json.loads(answer.removeprefix("44/market,"))["data"]
            assert data["code"] == code
            assert ("retry_after_ms" in data) is (code == "limit.connections")
            refused.cut()
        assert client is not None
        client.cut()


@pytest.mark.behaviour("D46")
async def test_events_over_the_rate_get_retry_after() -> None:
    async with running({"limits.events_per_second": 10, "limits.event_burst": 5}) as node:
        client = await RawClient.connect(node.port, node.token())
        answers = [await client.call("subscriptions", {}) for _ in range(6)]
        assert [each["ok"] for each in answers] == [True] * 5 + [False]
        assert answers[-1]["error"]["code"] == "limit.rate"
        assert answers[-1]["error"]["retry_after_ms"] == 100
        node.clock.advance(0.1)
        assert (await client.call("subscriptions", {}))["ok"]
        client.cut()
        await node.until_empty()


async def test_client_that_ignores_the_rate_limit_is_disconnected() -> None:
    async with running({"limits.events_per_second": 10, "limits.event_burst": 5}) as node:
        client = await RawClient.connect(node.port, node.token())
        for _ in range(16):
            client.send('42/market,["subscriptions"]')
        rest = await client.until_closed()
        assert rest.count(b'"error"') == 10
        assert b'"goodbye",{"code":"limit.rate"' in rest
        await node.until_empty()


async def test_anonymous_clients_of_an_address_share_a_rate_limit() -> None:
    settings: dict[str, object] = {
        "limits.events_per_second": 10,
        "limits.event_burst": 5,
        "auth.market_optional": True,
    }
    async with running(settings) as node:
        clients = [await RawClient.connect(node.port, None) for _ in range(5)]
        known = await RawClient.connect(node.port, node.token("bob"))
        answers = [await each.call("subscriptions", {}) for each in clients for _ in range(5)]
        assert [each["ok"] for each in answers] == [True] * 20 + [False] * 5
        assert (await known.call("subscriptions", {}))["ok"]
        for each in (*clients, known):
            each.cut()
        await node.until_empty()


async def test_topics_of_a_request_count_for_the_rate_limit() -> None:
    async with running({"limits.events_per_second": 10, "limits.event_burst": 5}) as node:
        client = await RawClient.connect(node.port, node.token())
        topics = [f"PRICE:S{number}" for number in range(1000)]
        assert "topics" in await client.call("subscribe", {"topics": topics})
        refused = await client.call("subscriptions", {})
        assert 1000 < refused["error"]["retry_after_ms"] < 3000
        client.cut()
        await node.until_empty()


async def test_connections_of_one_user_share_a_rate_limit() -> None:
    async with running({"limits.events_per_second": 10, "limits.event_burst": 5}) as node:
        clients = [await RawClient.connect(node.port, node.token()) for _ in range(5)]
        other_user = await RawClient.connect(node.port, node.token("bob"))
        answers = [await each.call("subscriptions", {}) for each in clients for _ in range(5)]
        assert [each["ok"] for each in answers] == [True] * 20 + [False] * 5
        assert (await other_user.call("subscriptions", {}))["ok"]
        for each in (*clients, other_user):
            each.cut()
        await node.until_empty()


async def test_forwarded_for_counts_only_from_a_trusted_proxy() -> None:
    forwarded = "X-Forwarded-For: 9.9.9.9, 203.0.113.7\r\n"
    settings = {"server.trusted_proxies": ["127.0.0.0/8"], "limits.connections_per_ip": 1}
    for trusted, expected in ((True, "203.0.113.7"), (False, "127.0.0.1")):
        if not trusted:
            settings["server.trusted_proxies"] = ["10.0.0.0/8"]
        async with running(settings) as node:
            client = await RawClient.open(node.port, headers=forwarded)
            await client.text()
            await client.join(node.token())
            [record] = node.server.clients.registry.connections()
            assert record.ip == expected
            client.cut()
            await node.until_empty()


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:{port}", True),
        ("https://app.example", True),
        ("https://evil.example", False),
        ("https://app.example.evil.example", False),
        ("null", False),
        ("http://127.0.0.1:1", False),
    ],
)
async def test_only_own_and_listed_origins_may_connect(origin: str, allowed: bool) -> None:
    async with running({"server.origins": ["https://app.example"]}) as node:
        origin = origin.format(port=node.port)
        url = f"{node.url}/socket.io/?EIO=4&transport=polling"
        async with (
            aiohttp.ClientSession() as http,
            http.get(url, headers={"Origin": origin}) as response,
        ):
            assert (response.status == 200) is allowed
            granted = response.headers.get("Access-Control-Allow-Origin")
            assert granted == (origin if allowed else None)


async def test_page_of_another_name_for_loopback_is_refused() -> None:
    """DNS rebinding: an attacker's name resolves to 127.0.0.1, and page and Host agree."""
    async with running() as node:
        host = f"rebound.example:{node.port}"
        url = f"{node.url}/socket.io/?EIO=4&transport=polling"
        headers = {"Origin": f"http://{host}", "Host": host}
        async with aiohttp.ClientSession() as http:
            async with http.get(url, headers=headers) as response:
                assert response.status == 403
            local = f"localhost:{node.port}"
            headers = {"Origin": f"http://{local}", "Host": local}
            async with http.get(url, headers=headers) as response:
                assert response.status == 200


async def test_publisher_at_its_share_leaves_room_for_other_orgs() -> None:
    async with running({"shares.topics_per_publisher": 2, "shares.sessions_per_org": 1}) as node:
        flood = await RawClient.connect(node.port, node.token("eve", org="evil"))
        messages = [{"topic": f"PRICE:X{number}", "data": PRICE} for number in range(5)]
        reply = await flood.call("publish", {"messages": messages})
        assert reply["error"]["code"] == "limit.share"
        assert [each.get("seq") for each in reply["positions"]] == [1, 1, None, None, None]
        ann = await RawClient.connect(node.port, node.token("ann", org="good"))
        assert (await ann.call("publish", {"messages": messages[3:]}))["ok"]
        sessions = [
            await SessionClient.connect(node, user, org=org)
            for user, org in (("eve", "evil"), ("ann", "good"))
        ]
        codes = []
        for each in sessions:
            for session_id in ("a", "b"):
                reply = await each.call("join", session_id=session_id)
                codes.append("ok" if reply["ok"] else reply["error"]["code"])
        assert codes == ["ok", "limit.share"] * 2
        for client in (flood, ann):
            client.cut()
        for member in sessions:
            member.cut()


async def test_endless_namespace_reconnects_close_the_connection() -> None:
    async with running() as node:
        client = await RawClient.open(node.port)
        await client.text()
        connect = f"40/session,{json.dumps({'token': node.token(), 'recovery': False})}"
        for _ in range(65):
            client.send(connect)
            while not (await client.text()).startswith('42/session,["welcome"'):
                pass
            client.send("41/session,")
        client.send(connect)
        assert (await client.frame())[0] == 8, "the noise limit between two pings counts it"
        client.cut()
        await node.until_empty()
