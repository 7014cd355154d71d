"""Test recovery between nodes together with limits, cuts and late releases."""

import asyncio
import json

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import RedisSharedLimits
from server.core.errors import FloorcastError
from server.core.limits.keys import LimitKey
from tests.journeys.test_recovery_on_another_node import check_empty, reconnect
from tests.journeys.test_shared_limits import PER_USER, until_empty
from tests.kit.clients.recovering import (
    RecoveringClient,
    market_client,
    publish_trades,
    trade_ids,
)
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import nodes


async def test_connection_requests_a_handover_only_once(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one)
        assert ann.pid is not None
        eve = RecoveringClient(two, "eve", "/market")
        await eve.open()
        for number in range(5):
            eve.pid = f"{ann.pid.partition('.')[0]}.guess{number}"
            await eve.connect_namespace()
            eve.wire.send("41/market,")
        await until(lambda: not two.residue()["registry"])
        assert (one.recovery_count("refused"), two.recovery_count("not_had")) == (1, 1)
        assert eve.client is not None
        eve.client.cut()
        eve.client = None
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("step", ["watch", "latest", "since"])
async def test_client_cut_while_topics_open_leaves_nothing_in_redis(
    step: str, fails: bool, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, proceed = asyncio.Event(), asyncio.Event()

    async with nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        ann = await market_client(one, "TRADES:A")
        half_open = ann.wire
        await publish_trades(one, 1)
        call = getattr(two.broker, step)

        async def delayed(*arguments: object) -> object:
            reached.set()
            await proceed.wait()
            if fails:
                raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker cannot be reached")
            return await call(*arguments)

        monkeypatch.setattr(two.broker, step, delayed)
        ann.node = two
        await ann.open()
        auth = {"token": two.token("ann"), "pid": ann.pid, "offset": ann.offset}
        ann.wire.send(f"40/market,{json.dumps(auth)}")
        await reached.wait()
        await half_open.until_closed()
        ann.wire.cut()
        ann.client = None
        await until(lambda: not two.residue()["sockets"])
        proceed.set()
        if not fails:
            # It is parked on the new node, as if it had been cut there.
            await until(lambda: two.residue()["tickets"])
            await check_empty(one, two, clients=())
        await until_empty(shared_redis, one, two)
        with shared_redis.client() as client:
            await until(lambda: not client.keys(f"{one.prefix}:recovery:*"))


async def test_late_release_of_a_slot_does_not_refuse_recovery(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        ann = await market_client(one, "TRADES:A")
        half_open, ann.client = ann.wire, None
        await publish_trades(one, 1)
        limits = one.server.clients.limits
        release = limits.on_release
        released: list[LimitKey] = []
        monkeypatch.setattr(limits, "on_release", released.append)
        shared_limits = two.server.clients.admission._shared_limits
        assert isinstance(shared_limits, RedisSharedLimits)
        acquire = shared_limits.acquire

        async def acquire_before_release(key: LimitKey) -> None:
            try:
                await acquire(key)
            finally:
                while released:
                    release(released.pop())

        monkeypatch.setattr(shared_limits, "acquire", acquire_before_release)
        assert trade_ids(await reconnect(ann, two)) == [1]
        assert ann.recovered
        await half_open.until_closed()
        monkeypatch.undo()
        eve = RecoveringClient(one, "ann", "/market")
        with pytest.raises(PermissionError, match=r"limit\.connections"):
            await eve.connect()
        eve.wire.cut()
        await check_empty(one, two, clients=(ann,))
        await until_empty(shared_redis, one, two)
