"""What is cluster-wide: asked on one node, answered by all, over Redis."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from client_sdk.contract import Scope
from server.brokers.redis.connection.pipeline import broker_unavailable
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until, until_awaited
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import Node, nodes, pass_time

PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}


async def call(node: Node, method: str, path: str, **options: Any) -> Any:
    """Call a node's API as an operator; returns its answer."""
    headers = {"Authorization": f"Bearer {node.token('ops', scopes=tuple(Scope))}"}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, f"{node.url}/api/v1{path}", headers=headers, **options) as response,
    ):
        assert response.status == 200, await response.text()
        return await response.json()


async def connect_error(node: Node, token: str) -> str:
    """The code with which a connect is refused."""
    client = await RawClient.open(node.port)
    await client.text()
    client.send(f"40/session,{json.dumps({'token': token})}")
    answer = await client.text()
    client.cut()
    assert answer.startswith("44/session,"), answer
    return str(json.loads(answer[answer.index("{") :])["data"]["code"])


async def until_joined(*started: Node) -> None:
    """Wait until all nodes answer each other."""
    for node in started:

        async def knows_all(node: Node = node) -> bool:
            answer = await call(node, "GET", "/nodes")
            return len(answer["nodes"]) == len(started) and not answer["incomplete"]

        await until_awaited(knows_all)


async def test_user_is_found_on_the_nodes_of_the_connections(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as [one, two]:
        await until_joined(one, two)
        clients = [await SessionClient.connect(each, "ann", "room") for each in (one, two)]
        for asked in (one, two):
            found = await call(asked, "GET", "/users/ann")
            assert {each["node"] for each in found["connections"]} == {
                one.broker.node,
                two.broker.node,
            }
            assert found["sessions"] == ["room"]
            assert found["incomplete"] == []
        for client in clients:
            client.cut()


async def test_disconnect_reaches_all_nodes(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as [one, two]:
        await until_joined(one, two)
        clients = [await SessionClient.connect(each, "ann") for each in (one, two)]
        answer = await call(one, "POST", "/users/ann/disconnect", json={"code": "desk.closed"})
        assert answer == {"closed": 2, "incomplete": []}
        for client in clients:
            assert (await client.next("goodbye"))["code"] == "desk.closed"
            await client.client.until_closed()


async def test_connections_of_all_nodes_share_their_pages(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as [one, two]:
        await until_joined(one, two)
        clients = [await SessionClient.connect(each, "ann") for each in (one, two) * 3]
        seen: list[str] = []
        params: dict[str, str] = {"limit": "2"}
        while True:
            page = await call(two, "GET", "/connections", params=params)
            seen += [each["connection_id"] for each in page["connections"]]
            if "next_cursor" not in page:
                break
            params["cursor"] = page["next_cursor"]
        assert sorted(seen) == sorted(each.welcome["connection_id"] for each in clients)
        shown = await call(one, "GET", f"/connections/{seen[0]}")
        assert shown["connection"]["connection_id"] == seen[0]
        for client in clients:
            client.cut()


async def test_subscribers_and_figures_are_the_sums_of_the_nodes(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as [one, two]:
        await until_joined(one, two)
        clients = [await RawClient.connect(each.port, each.token("ann")) for each in (one, two)]
        for client in clients:
            await client.call("subscribe", {"topics": ["PRICE:A"]})
        body = {"messages": [{"topic": "PRICE:A", "data": PRICE}]}
        await call(one, "POST", "/publish", json=body)
        while (await clients[1].event())[0] != "price":
            pass
        assert (await call(two, "GET", "/topics/PRICE:A"))["subscribers"] == 2
        [listed] = (await call(two, "GET", "/topics"))["topics"]
        assert (listed["topic"], listed["subscribers"], listed["seq"]) == ("PRICE:A", 2, 1)
        stats = await call(two, "GET", "/stats")
        assert (stats["nodes"], stats["connections"]) == (2, 2)
        assert stats["figures"]["messages_in"] == 1
        for client in clients:
            client.cut()


async def test_session_counts_once_in_the_figures_of_all_nodes(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as [one, two]:
        await until_joined(one, two)
        client = await SessionClient.connect(one, "ann", "room")
        await pass_time(3, one, two)
        assert (await call(two, "GET", "/stats"))["figures"]["sessions"] == 1
        client.cut()


async def test_sessions_are_those_of_all_nodes(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as [one, two]:
        clients = [await SessionClient.connect(one, "ann") for _ in range(1)]
        for name in ("b", "a", "c"):
            await clients[0].call("join", session_id=name, metadata={"title": name})
        first = await call(two, "GET", "/sessions", params={"limit": "2"})
        assert [(each["session_id"], each["metadata"]) for each in first["sessions"]] == [
            ("a", {"title": "a"}),
            ("b", {"title": "b"}),
        ]
        await call(two, "DELETE", "/sessions/c")
        rest = await call(
            two, "GET", "/sessions", params={"limit": "2", "cursor": first["next_cursor"]}
        )
        assert [(each["session_id"], each["closed"]) for each in rest["sessions"]] == [("c", True)]
        clients[0].cut()


async def test_node_that_does_not_answer_is_named(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(shared_redis) as [one, two]:
        await until_joined(one, two)

        async def hang(_: bytes) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(two.server.backend.cluster, "_answer", hang)
        answer = await call(one, "GET", "/users/ann")
        assert answer["incomplete"] == [two.broker.node]


async def test_node_that_has_stopped_is_not_missing(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as [one, two]:
        await until_joined(one, two)
        await two.stop()
        answer = await call(one, "GET", "/nodes")
        assert [each["node"] for each in answer["nodes"]] == [one.broker.node]
        assert answer["incomplete"] == []


async def test_node_alone_answers_for_itself_while_redis_is_down(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(shared_redis) as [one, two]:
        await until_joined(one, two)

        async def fail(*_: object, **__: object) -> None:
            raise broker_unavailable()

        client = await SessionClient.connect(one, "ann")
        monkeypatch.setattr(one.broker._pipeline, "run", fail)
        answer = await call(one, "GET", "/users/ann")
        assert len(answer["connections"]) == 1
        assert answer["incomplete"] == [two.broker.node]
        monkeypatch.undo()
        client.cut()
        await until(lambda: not one.residue()["sockets"])


async def test_revocation_holds_on_all_nodes_and_on_later_ones(shared_redis: RedisServer) -> None:
    prefix = f"revoked{shared_redis.port}"
    settings = {"broker.prefix": prefix}
    async with nodes(shared_redis, **settings) as [one, two]:
        await until_joined(one, two)
        client = await SessionClient.connect(two, "ann")
        token = two.token("ann")
        one.clock.advance(1)
        answer = await call(one, "POST", "/tokens/revoke", json={"user": "ann"})
        assert (answer["closed"], answer["incomplete"]) == (1, [])
        goodbye = await client.next("goodbye")
        assert (goodbye["code"], goodbye["reconnect"]) == ("auth.revoked", False)
        await client.client.until_closed()
        for node in (one, two):
            assert await connect_error(node, token) == "auth.revoked"
        listed = await call(two, "GET", "/tokens/revoked")
        assert [each["user"] for each in listed["revocations"]] == ["ann"]
    async with nodes(shared_redis, 1, **settings) as [later]:
        assert await connect_error(later, token) == "auth.revoked"
