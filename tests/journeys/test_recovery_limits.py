"""Where crossing nodes meets limits and restarts: nobody is asked too much, and all adds up."""

import asyncio
import json

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import RedisPlaces
from server.core.errors import FloorcastError
from server.core.limits.keys import Holder
from tests.journeys.test_recovery_on_another_node import back, empty, ids, nodes, trade, trader
from tests.journeys.test_shared_limits import PER_USER, until_empty
from tests.kit.clients.recovering import Returning
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer


async def test_a_connection_asks_other_nodes_once_however_often_it_connects(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one)
        assert ann.pid is not None
        eve = Returning(two.floor, "eve", "/market")
        await eve._open()
        for number in range(5):
            eve.pid = f"{ann.pid.partition('.')[0]}.guess{number}"
            await eve.join()
            eve.wire.send("41/market,")
        await until(lambda: not two.floor.residue()["registry"])
        assert (one.total("refused"), two.total("not_had")) == (1, 1)
        assert eve.client is not None
        eve.client.cut()
        eve.client = None
        await empty(one, two, clients=(ann,))


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("step", ["watch", "latest", "since"])
async def test_a_client_that_goes_while_its_topics_are_opened_leaves_nothing_in_redis_either(
    step: str, fails: bool, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    async with nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        ann = await trader(one, "TRADES:A")
        half_open = ann.wire
        await trade(one, 1)
        take = getattr(two.broker, step)

        async def late(*what: object) -> object:
            reached.set()
            await gone.wait()
            if fails:
                raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker is away")
            return await take(*what)

        monkeypatch.setattr(two.broker, step, late)
        ann.floor = two.floor
        await ann._open()
        auth = {"token": two.floor.token("ann"), "pid": ann.pid, "offset": ann.offset}
        ann.wire.send(f"40/market,{json.dumps(auth)}")
        await reached.wait()
        await half_open.ended()
        ann.wire.cut()
        ann.client = None
        await until(lambda: not two.floor.residue()["sockets"])
        gone.set()
        if not fails:
            # It is waited for there, as if it had been cut off there.
            await until(lambda: two.floor.residue()["tickets"])
            await empty(one, two, clients=())
        await until_empty(shared_redis, one.floor, two.floor)
        with shared_redis.client() as client:
            prefix = one.floor.server.settings.broker.prefix
            await until(lambda: not client.keys(f"{prefix}:recovery:*"))


async def test_a_place_that_is_given_back_a_moment_late_refuses_nobody_who_crosses(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        ann = await trader(one, "TRADES:A")
        half_open, ann.client = ann.wire, None
        await trade(one, 1)
        limits = one.floor.server.connection_limits
        give = limits.give
        given: list[Holder] = []
        monkeypatch.setattr(limits, "give", given.append)
        places = two.floor.server.admission._places
        assert isinstance(places, RedisPlaces)
        take = places.take

        async def take_before_it_is_given(holder: Holder) -> None:
            try:
                await take(holder)
            finally:
                while given:
                    give(given.pop())

        monkeypatch.setattr(places, "take", take_before_it_is_given)
        assert ids(await back(ann, two)) == [1]
        assert ann.recovered
        await half_open.ended()
        monkeypatch.undo()
        eve = Returning(one.floor, "ann", "/market")
        with pytest.raises(PermissionError, match=r"limit\.connections"):
            await eve.come()
        eve.wire.cut()
        await empty(one, two, clients=(ann,))
        await until_empty(shared_redis, one.floor, two.floor)
