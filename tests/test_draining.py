"""How clients are sent away: each at its own moment, with what is meant for it."""

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


def departures(floor: RunningServer, seconds: float) -> Drain:
    return Drain(
        floor.server.sockets.connections(),
        reason=GOING_DOWN,
        within_seconds=seconds,
        flush=floor.server.hub.flush,
        clock=floor.clock,
    )


async def hinted_ms(client: RawClient) -> int:
    event, hint = await client.event()
    assert event == "reconnect_hint"
    after_ms = hint["after_ms"]
    assert isinstance(after_ms, int)
    return after_ms


async def test_each_client_goes_at_the_moment_that_it_was_told() -> None:
    async with running() as floor:
        clients = [await RawClient.connect(floor.port, floor.token()) for _ in range(8)]
        random.seed(1)
        leaving = departures(floor, 100)
        moments = sorted([(await hinted_ms(client), n) for n, client in enumerate(clients)])
        assert 0 <= moments[0][0] < moments[-1][0] <= 50_000
        assert len({after_ms for after_ms, _ in moments}) > 1
        passed_ms = 0
        for open_count, (after_ms, number) in zip(range(7, -1, -1), moments, strict=True):
            # A hint in whole milliseconds may be cut by almost one.
            floor.clock.advance((after_ms + 1 - passed_ms) / 1000)
            passed_ms = after_ms + 1
            leaving.tick()
            event, goodbye = await clients[number].event()
            assert (event, goodbye["code"]) == ("goodbye", "server.draining")
            assert floor.residue()["sockets"] == open_count
            assert bool(leaving) is (open_count > 0)
            clients[number].cut()
        await floor.until_empty()


async def test_what_was_published_before_the_goodbye_comes_before_it() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.call("subscribe", {"topics": ["PRICE:A"]})
        leaving = departures(floor, 0)
        await floor.server.publishing.publish("PRICE:A", PRICE)
        leaving.tick()
        assert [(await client.event())[0] for _ in range(3)] == [
            "reconnect_hint",
            "price",
            "goodbye",
        ]
        assert not leaving
        client.cut()


class Gate:
    """Publishing that waits until it is let through."""

    def __init__(self, publish: Callable[..., Awaitable[Any]]) -> None:
        self.open = asyncio.Event()
        self._publish = publish

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        await self.open.wait()
        return await self._publish(*arguments, **named)


@pytest.mark.parametrize("answered", [True, False])
async def test_who_waits_for_an_answer_goes_when_it_has_it_or_when_it_takes_too_long(
    answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as floor:
        gate = Gate(floor.server.broker.publish)
        monkeypatch.setattr(floor.server.broker, "publish", gate)
        client = await RawClient.connect(floor.port, floor.token())
        asking = asyncio.ensure_future(
            client.call("publish", {"messages": [{"topic": "PRICE:A", "data": PRICE}]})
        )
        [connection] = floor.server.sockets.connections()
        await until(lambda: connection.busy)
        leaving = departures(floor, 100)
        floor.clock.advance(60)
        leaving.tick()
        assert leaving
        if answered:
            gate.open.set()
            assert (await asking)["ok"]
        else:
            asking.cancel()
            floor.clock.advance(20)
        leaving.tick()
        assert not leaving
        gate.open.set()
        client.cut()
        await floor.until_empty()
