"""Limits over real sockets: exact at their edge, given back, and told to whom they hit."""

import asyncio
import json

import aiohttp
import pytest

from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer, running


async def try_connect(node: RunningServer, user: str = "ann") -> tuple[str, RawClient | None]:
    """Connect; "ok" with the client, or the code of the refusal."""
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
async def test_a_limit_of_connections_is_exact_when_they_arrive_at_once(limit: str) -> None:
    async with running({limit: 7}) as floor:
        results = await asyncio.gather(*(try_connect(floor) for _ in range(20)))
        codes = sorted(code for code, _ in results)
        assert codes == ["limit.connections"] * 13 + ["ok"] * 7
        inside = [client for _, client in results if client is not None]
        inside.pop().cut()
        await until(lambda: floor.residue()["places"] == 6)
        code, client = await try_connect(floor)
        assert (code, client is not None) == ("ok", True)
        assert (await try_connect(floor))[0] == "limit.connections"
        for each in (*inside, client):
            if each is not None:
                each.cut()
        await floor.until_empty()


async def test_a_refused_client_does_not_stay_whether_it_asks_or_not() -> None:
    async with running({"limits.connections": 1}) as floor:
        _, inside = await try_connect(floor)
        assert inside is not None
        silent = await RawClient.open(floor.port)
        asking = await RawClient.open(floor.port)
        for client in (silent, asking):
            await client.text()
        asking.send("40/market,{}")
        assert "limit.connections" in await asking.text()
        floor.pass_time(1.1)
        await asking.until_closed()
        floor.pass_time(4)
        await silent.until_closed()
        inside.cut()
        await floor.until_empty()


async def test_too_many_attempts_a_second_are_refused_before_any_token_is_judged() -> None:
    async with running({"limits.connects_per_second_per_ip": 5}) as floor:
        results = [await try_connect(floor) for _ in range(12)]
        assert [code for code, _ in results] == ["ok"] * 10 + ["limit.rate"] * 2
        floor.clock.advance(1)
        again, client = await try_connect(floor)
        assert again == "ok"
        for each in (*(each for _, each in results), client):
            if each is not None:
                each.cut()
        await floor.until_empty()


async def test_when_even_refusing_is_too_much_the_answer_is_429() -> None:
    async with running({"limits.connects_per_second": 1}) as floor:
        # Two may come in, and 256 more may hear why they may not.
        clients = [await RawClient.open(floor.port) for _ in range(2 + 256)]
        with pytest.raises(ConnectionError, match=r"429(.|\n)*Retry-After(.|\n)*limit.rate"):
            await RawClient.open(floor.port)
        for client in clients:
            client.cut()
        await floor.until_empty()
        code, _ = await try_connect(floor)
        assert code == "limit.rate", "when they have gone, the next one hears why again"
        await floor.until_empty()


@pytest.mark.behaviour("D46")
async def test_events_over_the_rate_are_refused_with_the_time_to_wait() -> None:
    async with running({"limits.events_per_second": 10, "limits.event_burst": 5}) as floor:
        client = await RawClient.connect(floor.port, floor.token())
        answers = [await client.call("subscriptions", {}) for _ in range(6)]
        assert [each["ok"] for each in answers] == [True] * 5 + [False]
        assert answers[-1]["error"]["code"] == "limit.rate"
        assert answers[-1]["error"]["retry_after_ms"] == 100
        floor.clock.advance(0.1)
        assert (await client.call("subscriptions", {}))["ok"]
        client.cut()
        await floor.until_empty()


async def test_who_goes_on_hammering_is_disconnected() -> None:
    async with running({"limits.events_per_second": 10, "limits.event_burst": 5}) as floor:
        client = await RawClient.connect(floor.port, floor.token())
        for _ in range(16):
            client.send('42/market,["subscriptions"]')
        rest = await client.until_closed()
        assert rest.count(b'"error"') == 10
        assert b'"goodbye",{"code":"limit.rate"' in rest
        await floor.until_empty()


async def test_one_user_on_many_connections_shares_an_allowance() -> None:
    async with running({"limits.events_per_second": 10, "limits.event_burst": 5}) as floor:
        clients = [await RawClient.connect(floor.port, floor.token()) for _ in range(5)]
        stranger = await RawClient.connect(floor.port, floor.token("bob"))
        answers = [await each.call("subscriptions", {}) for each in clients for _ in range(5)]
        assert [each["ok"] for each in answers] == [True] * 20 + [False] * 5
        assert (await stranger.call("subscriptions", {}))["ok"]
        for each in (*clients, stranger):
            each.cut()
        await floor.until_empty()


async def test_behind_a_trusted_proxy_the_client_counts_and_a_forged_header_does_not() -> None:
    forwarded = "X-Forwarded-For: 9.9.9.9, 203.0.113.7\r\n"
    settings = {"server.trusted_proxies": ["127.0.0.0/8"], "limits.connections_per_ip": 1}
    for trusted, expected in ((True, "203.0.113.7"), (False, "127.0.0.1")):
        if not trusted:
            settings["server.trusted_proxies"] = ["10.0.0.0/8"]
        async with running(settings) as floor:
            client = await RawClient.open(floor.port, headers=forwarded)
            await client.text()
            await client.join(floor.token())
            [record] = floor.server.registry.connections()
            assert record.ip == expected
            client.cut()
            await floor.until_empty()


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
async def test_only_our_own_origin_and_those_listed_may_connect(origin: str, allowed: bool) -> None:
    async with running({"server.origins": ["https://app.example"]}) as floor:
        origin = origin.format(port=floor.port)
        url = f"{floor.url}/socket.io/?EIO=4&transport=polling"
        async with (
            aiohttp.ClientSession() as http,
            http.get(url, headers={"Origin": origin}) as response,
        ):
            assert (response.status == 200) is allowed
            granted = response.headers.get("Access-Control-Allow-Origin")
            assert granted == (origin if allowed else None)


async def test_who_leaves_a_namespace_and_comes_back_without_end_is_sent_away() -> None:
    async with running() as floor:
        client = await RawClient.open(floor.port)
        await client.text()
        connect = f"40/session,{json.dumps({'token': floor.token(), 'recovery': False})}"
        for _ in range(65):
            client.send(connect)
            while not (await client.text()).startswith('42/session,["welcome"'):
                pass
            client.send("41/session,")
        client.send(connect)
        assert (await client.frame())[0] == 8, "as often between two pings as other noise"
        client.cut()
        await floor.until_empty()
