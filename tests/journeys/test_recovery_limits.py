"""Where crossing nodes meets limits and restarts: nobody is asked too much, and all adds up."""

import asyncio
import json

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import RedisSharedLimits
from server.core.errors import FloorcastError
from server.core.limits.keys import LimitKey
from tests.journeys.test_recovery_on_another_node import (
    check_empty,
    market_client,
    nodes,
    publish_trades,
    reconnect,
    trade_ids,
)
from tests.journeys.test_shared_limits import PER_USER, until_empty
from tests.kit.clients.recovering import RecoveringClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer


async def test_a_connection_asks_other_nodes_once_however_often_it_connects(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one)
        assert ann.pid is not None
        eve = RecoveringClient(two.server, "eve", "/market")
        await eve.open()
        for number in range(5):
            eve.pid = f"{ann.pid.partition('.')[0]}.guess{number}"
            await eve.connect_namespace()
            eve.wire.send("41/market,")
        await until(lambda: not two.server.residue()["registry"])
        assert (one.recovery_count("refused"), two.recovery_count("not_had")) == (1, 1)
        assert eve.client is not None
        eve.client.cut()
        eve.client = None
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("step", ["watch", "latest", "since"])
async def test_a_client_that_goes_while_its_topics_are_opened_leaves_nothing_in_redis_either(
    step: str, fails: bool, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    async with nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        ann = await market_client(one, "TRADES:A")
        half_open = ann.wire
        await publish_trades(one, 1)
        take = getattr(two.broker, step)

        async def late(*what: object) -> object:
            reached.set()
            await gone.wait()
            if fails:
                raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker is away")
            return await take(*what)

        monkeypatch.setattr(two.broker, step, late)
        ann.node = two.server
        await ann.open()
        auth = {"token": two.server.token("ann"), "pid": ann.pid, "offset": ann.offset}
        ann.wire.send(f"40/market,{json.dumps(auth)}")
        await reached.wait()
        await half_open.until_closed()
        ann.wire.cut()
        ann.client = None
        await until(lambda: not two.server.residue()["sockets"])
        gone.set()
        if not fails:
            # It is waited for there, as if it had been cut off there.
            await until(lambda: two.server.residue()["tickets"])
            await check_empty(one, two, clients=())
        await until_empty(shared_redis, one.server, two.server)
        with shared_redis.client() as client:
            prefix = one.server.server.settings.broker.prefix
            await until(lambda: not client.keys(f"{prefix}:recovery:*"))


async def test_a_place_that_is_given_back_a_moment_late_refuses_nobody_who_crosses(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        ann = await market_client(one, "TRADES:A")
        half_open, ann.client = ann.wire, None
        await publish_trades(one, 1)
        limits = one.server.server.connection_limits
        give = limits.on_release
        given: list[LimitKey] = []
        monkeypatch.setattr(limits, "on_release", given.append)
        places = two.server.server.admission._shared_limits
        assert isinstance(places, RedisSharedLimits)
        take = places.acquire

        async def take_before_it_is_given(holder: LimitKey) -> None:
            try:
                await take(holder)
            finally:
                while given:
                    give(given.pop())

        monkeypatch.setattr(places, "acquire", take_before_it_is_given)
        assert trade_ids(await reconnect(ann, two)) == [1]
        assert ann.recovered
        await half_open.until_closed()
        monkeypatch.undo()
        eve = RecoveringClient(one.server, "ann", "/market")
        with pytest.raises(PermissionError, match=r"limit\.connections"):
            await eve.connect()
        eve.wire.cut()
        await check_empty(one, two, clients=(ann,))
        await until_empty(shared_redis, one.server, two.server)
