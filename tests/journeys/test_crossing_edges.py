"""Where crossing nodes meets limits and restarts: nobody is asked too much, and all adds up."""

from tests.journeys.test_crossing import empty, nodes, trader
from tests.kit.patience import until
from tests.kit.redis import RedisServer
from tests.kit.returning import Returning


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
