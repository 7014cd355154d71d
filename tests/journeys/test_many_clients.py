"""Many clients at once: coming, going, failing and being cut, with nothing left at the end."""

import asyncio
import gc
import random
import tracemalloc
from typing import Any, cast

import pytest

from server.core.connections import ConnectionManager
from server.core.market.subscriptions import Subscriptions
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import PRICE, RunningServer, running


@pytest.mark.behaviour("A15")
@pytest.mark.behaviour("A16")
async def test_many_connect_at_once_and_leave_at_once() -> None:
    async with running() as floor:
        for _ in range(2):
            clients = await asyncio.gather(
                *(RawClient.connect(floor.port, floor.token(f"u{i % 50}")) for i in range(200))
            )
            assert floor.server.registry.stats() == {
                "connections": 200,
                "users": 50,
                "orgs": 1,
                "devices": 200,
            }
            await asyncio.gather(*(client.close() for client in clients))
            await floor.until_empty()


@pytest.mark.behaviour("B13")
async def test_ending_a_connection_closes_its_socket_and_cleans_every_index() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.join(floor.token(), namespace="/session")
        await client.call("subscribe", {"topics": ["PRICE:A"]})
        assert floor.residue()["registry"] == 2
        assert floor.server.registry.stats()["devices"] == 1
        floor.server.sockets.connections()[0].close("the operator said so")
        await client.until_closed()
        await floor.until_empty()


@pytest.mark.behaviour("A11")
@pytest.mark.behaviour("D19")
async def test_a_handler_that_fails_is_an_error_with_an_id_and_the_connection_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running({"limits.connections_per_user": 1}) as floor:
        client = await RawClient.connect(floor.port, floor.token())

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
        unlucky = await RawClient.open(floor.port)
        await unlucky.text()
        unlucky.send('40/market,{"token":"' + floor.token("bob") + '"}')
        refusal = await unlucky.text()
        assert refusal.startswith("44/market,")
        assert "server.internal" in refusal
        monkeypatch.undo()
        assert (await unlucky.join(floor.token("bob")))["user_id"] == "bob"
        unlucky.send("41/market,")
        while len(floor.server.registry) > 1:
            await asyncio.sleep(0)
        # The failure counted for nothing: the user's one place is free again.
        lucky = await RawClient.connect(floor.port, floor.token("bob"))
        for each in (client, unlucky, lucky):
            each.cut()
        await floor.until_empty()


@pytest.mark.behaviour("C13")
async def test_a_client_that_does_not_take_its_leave_is_cut_off_and_hurts_nobody() -> None:
    async with running({"delivery.buffer_bytes": 50_000_000}) as floor:
        deaf = await RawClient.connect(floor.port, floor.token("deaf"))
        other = await RawClient.connect(floor.port, floor.token("ann"))
        for client in (deaf, other):
            await client.call("subscribe", {"topics": ["PRICE:A"]})
        deaf.pause_reading()
        deaf_connection, other_connection = floor.server.sockets.connections()
        body = {**PRICE, "note": "x" * 30_000}
        while deaf_connection.buffered_bytes < 1_000_000:
            await floor.server.publishing.publish("PRICE:A", body)
            await other.event()
        deaf_connection.close("told to go")
        for _ in range(10):
            await asyncio.sleep(0)
        assert floor.residue()["registry"] == 1, "what it had is given back at once"
        assert floor.residue()["watched"] == 3, "but its bytes are still on their way"
        floor.pass_time(1.1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert floor.residue()["watched"] == 2
        assert not other_connection.closed
        await floor.server.publishing.publish("PRICE:A", PRICE)
        assert (await other.event())[0] == "price"
        for client in (deaf, other):
            client.cut()
        await floor.until_empty()


ACTIONS = ("come", "come", "go", "cut", "subscribe", "leave", "rubbish", "publish")


class RandomClients:
    """Clients that do at random what clients do, from a seed."""

    def __init__(self, node: RunningServer, seed: int) -> None:
        self._node = node
        self._random = random.Random(seed)
        self._clients: list[RawClient] = []

    async def act(self) -> None:
        """One step: come, go, be cut, subscribe, leave a namespace, send rubbish."""
        draw = self._random
        step = draw.choice(
            ["come", "come", "go", "cut", "subscribe", "leave", "rubbish", "publish"]
        )
        floor = self._node
        if step == "publish":
            await floor.server.publishing.publish(f"PRICE:{draw.choice('ABC')}", PRICE)
        elif step == "come":
            token = floor.token(f"u{draw.randrange(5)}", org=draw.choice(["acme", "other"]))
            namespace = draw.choice(["/market", "/session"])
            self._clients.append(await RawClient.connect(floor.port, token, namespace=namespace))
        elif self._clients:
            client = draw.choice(self._clients)
            if step == "subscribe":
                client.send(f'42/market,["subscribe",{{"topics":["PRICE:{draw.choice("ABC")}"]}}]')
            elif step == "leave":
                client.send("41/market,")
            else:
                self._clients.remove(client)
                if step == "rubbish":
                    client.send("4[[")
                if step == "go":
                    await client.close()
                else:
                    client.cut()

    def cut_all(self) -> None:
        while self._clients:
            self._clients.pop().cut()


@pytest.mark.behaviour("D32")
async def test_a_stress_run_leaves_nothing_behind() -> None:
    async with running({"limits.events_per_second": 0}) as floor:
        for seed in range(4):
            crowd = RandomClients(floor, seed)
            for _ in range(150):
                await crowd.act()
            crowd.cut_all()
            await floor.until_empty()


@pytest.mark.behaviour("D45")
async def test_memory_is_given_back_when_everybody_has_left() -> None:
    async with running() as floor:

        async def visit(count: int) -> None:
            clients = [
                await RawClient.connect(floor.port, floor.token(f"u{i}")) for i in range(count)
            ]
            for client in clients:
                await client.call("subscribe", {"topics": ["PRICE:A"]})
                client.cut()
            await floor.until_empty()

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
        # What one connection costs while it is there is several times this.
    assert after - before < 500 * 150
