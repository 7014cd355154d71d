"""Test many clients at once: connecting, leaving, failing and being cut, with nothing left."""

import asyncio
import gc
import random
import tracemalloc
from typing import Any, cast

import pytest

from server.core.connections import ConnectionManager
from server.core.disconnects import DisconnectReason
from server.core.market.subscriptions import Subscriptions
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import PRICE, RunningServer, running


@pytest.mark.behaviour("A15")
@pytest.mark.behaviour("A16")
async def test_many_clients_connect_and_leave_at_once() -> None:
    async with running() as node:
        for _ in range(2):
            clients = await asyncio.gather(
                *(RawClient.connect(node.port, node.token(f"u{i % 50}")) for i in range(200))
            )
            assert node.server.clients.registry.stats() == {
                "connections": 200,
                "users": 50,
                "orgs": 1,
                "devices": 200,
            }
            await asyncio.gather(*(client.close() for client in clients))
            await node.until_empty()


@pytest.mark.behaviour("B13")
async def test_close_cleans_every_index() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        await client.join(node.token(), namespace="/session")
        await client.call("subscribe", {"topics": ["PRICE:A"]})
        assert node.residue()["registry"] == 2
        assert node.server.clients.registry.stats()["devices"] == 1
        node.server.sockets.connections()[0].close(DisconnectReason("a test closes it"))
        await client.until_closed()
        await node.until_empty()


@pytest.mark.behaviour("A11")
@pytest.mark.behaviour("D19")
async def test_failing_handler_returns_an_incident_id(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running({"limits.connections_per_user": 1}) as node:
        client = await RawClient.connect(node.port, node.token())

        def fail(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Subscriptions, "request", fail)
        answer = await client.call("subscribe", {"topics": ["PRICE:A"]})
        assert answer["error"]["code"] == "server.internal"
        incident = answer["error"]["details"]["incident"]
        assert "a bug" not in str(answer)
        [logged] = [each for each in caplog.records if each.levelname == "ERROR"]
        assert cast(Any, logged).incident == incident
        monkeypatch.undo()
        assert (await client.call("subscribe", {"topics": ["PRICE:A"]}))["ok"]

        monkeypatch.setattr(ConnectionManager, "add", fail)
        unlucky = await RawClient.open(node.port)
        await unlucky.text()
        unlucky.send('40/market,{"token":"' + node.token("bob") + '"}')
        refusal = await unlucky.text()
        assert refusal.startswith("44/market,")
        assert "server.internal" in refusal
        monkeypatch.undo()
        assert (await unlucky.join(node.token("bob")))["user_id"] == "bob"
        unlucky.send("41/market,")
        while len(node.server.clients.registry) > 1:
            await asyncio.sleep(0)
        # The failed connect took no limit slot: the user's only one is free.
        lucky = await RawClient.connect(node.port, node.token("bob"))
        for each in (client, unlucky, lucky):
            each.cut()
        await node.until_empty()


@pytest.mark.behaviour("C13")
async def test_client_that_ignores_a_close_is_aborted() -> None:
    async with running({"delivery.buffer_bytes": 50_000_000}) as node:
        slow = await RawClient.connect(node.port, node.token("slow"))
        other = await RawClient.connect(node.port, node.token("ann"))
        for client in (slow, other):
            await client.call("subscribe", {"topics": ["PRICE:A"]})
        slow.pause_reading()
        slow_connection, other_connection = node.server.sockets.connections()
        body = {**PRICE, "note": "x" * 30_000}
        while slow_connection.buffered_bytes < 1_000_000:
            await node.server.market.publishing.publish("PRICE:A", body)
            await other.event()
        slow_connection.close(DisconnectReason("a test closes it"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert node.residue()["registry"] == 1, "its state is released at once"
        assert node.residue()["watched"] == 3, "its bytes are still unsent"
        node.pass_time(1.1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert node.residue()["watched"] == 2
        assert not other_connection.closed
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        assert (await other.event())[0] == "price"
        for client in (slow, other):
            client.cut()
        await node.until_empty()


ACTIONS = (
    *("connect", "connect", "close", "cut", "subscribe"),
    *("disconnect", "malformed", "publish"),
)


class RandomClients:
    """Clients whose random actions depend on a seed."""

    def __init__(self, node: RunningServer, seed: int) -> None:
        self._node = node
        self._random = random.Random(seed)
        self._clients: list[RawClient] = []

    async def act(self) -> None:
        """Do one random action."""
        draw = self._random
        action = draw.choice(ACTIONS)
        node = self._node
        if action == "publish":
            await node.server.market.publishing.publish(f"PRICE:{draw.choice('ABC')}", PRICE)
        elif action == "connect":
            token = node.token(f"u{draw.randrange(5)}", org=draw.choice(["acme", "other"]))
            namespace = draw.choice(["/market", "/session"])
            self._clients.append(await RawClient.connect(node.port, token, namespace=namespace))
        elif self._clients:
            client = draw.choice(self._clients)
            if action == "subscribe":
                client.send(f'42/market,["subscribe",{{"topics":["PRICE:{draw.choice("ABC")}"]}}]')
            elif action == "disconnect":
                client.send("41/market,")
            else:
                self._clients.remove(client)
                if action == "malformed":
                    client.send("4[[")
                if action == "close":
                    await client.close()
                else:
                    client.cut()

    def cut_all(self) -> None:
        while self._clients:
            self._clients.pop().cut()


@pytest.mark.behaviour("D32")
async def test_stress_run_leaves_nothing() -> None:
    async with running({"limits.events_per_second": 0}) as node:
        for seed in range(4):
            clients = RandomClients(node, seed)
            for _ in range(150):
                await clients.act()
            clients.cut_all()
            await node.until_empty()


@pytest.mark.behaviour("D45")
async def test_closed_connections_free_their_memory() -> None:
    async with running() as node:

        async def visit(count: int) -> None:
            clients = [
                await RawClient.connect(node.port, node.token(f"u{i}")) for i in range(count)
            ]
            for client in clients:
                await client.call("subscribe", {"topics": ["PRICE:A"]})
                client.cut()
            await node.until_empty()

        await visit(20)
        tracemalloc.start()
        try:
            await visit(100)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(5):
                await visit(100)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # An open connection costs several times as much.
    assert after - before < 500 * 150
