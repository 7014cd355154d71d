"""Tests draining: each client is disconnected at its own time, after pending messages."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.draining import Drain
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running

GOING_DOWN = FloorcastError(ErrorCode.SERVER_DRAINING, "the server is going down")


def start_drain(node: RunningServer, seconds: float) -> Drain:
    return Drain(
        node.server.sockets.connections(),
        reason=GOING_DOWN,
        within_seconds=seconds,
        flush=node.server.delivery.hub.flush,
        clock=node.clock,
    )


async def hinted_ms(client: RawClient) -> int:
    event, hint = await client.event()
    assert event == "reconnect_hint"
    after_ms = hint["after_ms"]
    assert isinstance(after_ms, int)
    return after_ms


@pytest.mark.parametrize(("seconds", "spread_ms"), [(6, 3000), (100, 4000)])
async def test_client_is_disconnected_at_the_time_of_its_hint(
    seconds: float, spread_ms: int
) -> None:
    async with running() as node:
        clients = [await RawClient.connect(node.port, node.token()) for _ in range(8)]
        random.seed(1)
        drain = start_drain(node, seconds)
        hints = sorted([(await hinted_ms(client), n) for n, client in enumerate(clients)])
        # Half of the time, but no slower than two clients a second.
        assert 0 <= hints[0][0] < spread_ms / 2 < hints[-1][0] <= spread_ms
        assert len({after_ms for after_ms, _ in hints}) > 1
        passed_ms = 0
        for open_count, (after_ms, number) in zip(range(7, -1, -1), hints, strict=True):
            # The hint is rounded down to milliseconds.
            node.clock.advance((after_ms + 1 - passed_ms) / 1000)
            passed_ms = after_ms + 1
            drain.tick()
            event, goodbye = await clients[number].event()
            assert (event, goodbye["code"]) == ("goodbye", "server.draining")
            assert node.residue()["sockets"] == open_count
            assert bool(drain) is (open_count > 0)
            clients[number].cut()
        await node.until_empty()


async def test_drain_ends_when_its_clients_have_left() -> None:
    async with running() as node:
        clients = [await RawClient.connect(node.port, node.token()) for _ in range(2)]
        drain = start_drain(node, 100)
        for client, remaining in zip(clients, (1, 0), strict=True):
            await hinted_ms(client)
            client.cut()
            await until(lambda count=remaining: node.residue()["sockets"] == count)
            drain.tick()
            assert drain.remaining == remaining
        assert not drain


async def test_pending_message_comes_before_the_goodbye() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:A"]})
        drain = start_drain(node, 0)
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        drain.tick()
        assert [(await client.event())[0] for _ in range(3)] == [
            "reconnect_hint",
            "price",
            "goodbye",
        ]
        assert not drain
        client.cut()


class PausedPublish:
    """Holds calls of `publish` until `open` is set."""

    def __init__(self, publish: Callable[..., Awaitable[Any]]) -> None:
        self.open = asyncio.Event()
        self._publish = publish

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        await self.open.wait()
        return await self._publish(*arguments, **named)


@pytest.mark.parametrize("answered", [True, False])
async def test_busy_client_is_disconnected_after_its_reply_or_timeout(
    answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as node:
        publish_gate = PausedPublish(node.server.backend.broker.publish)
        monkeypatch.setattr(node.server.backend.broker, "publish", publish_gate)
        client = await RawClient.connect(node.port, node.token())
        call = asyncio.ensure_future(
            client.call("publish", {"messages": [{"topic": "PRICE:A", "data": PRICE}]})
        )
        [connection] = node.server.sockets.connections()
        await until(lambda: connection.busy)
        drain = start_drain(node, 100)
        node.clock.advance(60)
        drain.tick()
        assert drain
        if answered:
            publish_gate.open.set()
            assert (await call)["ok"]
        else:
            call.cancel()
            node.clock.advance(20)
        drain.tick()
        assert not drain
        publish_gate.open.set()
        client.cut()
        await node.until_empty()
