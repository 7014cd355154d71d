"""Tests that nothing of an ended connection waits for the garbage collector."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer, running

_CHURN = 20


@contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def objects() -> Counter[str]:
    """The number of live objects of the server and of aiohttp, by class."""
    modules = ("server.", "aiohttp.", "socketio.", "engineio.")
    kinds = [type(each) for each in gc.get_objects()]
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith(modules))


async def come_and_go(node: RunningServer) -> None:
    client = await RawClient.connect(node.port, node.token(), recovery=True)
    await client.call("subscribe", {"topics": ["PRICE:A", "TRADES:B"]})
    await client.join(node.token(), namespace="/session")
    await client.call("join", {"session_id": "room"}, namespace="/session")
    client.cut()
    await until(lambda: not node.server.sockets.connection_count)


@pytest.mark.parametrize("window_seconds", [0, 120])
async def test_ended_connections_are_freed_without_a_collection(window_seconds: int) -> None:
    async with running({"recovery.window_seconds": window_seconds}) as node:
        for _ in range(3):
            await come_and_go(node)
        node.pass_time(window_seconds + 11)
        await node.until_empty()
        with collector_off():
            before = objects()
            for _ in range(_CHURN):
                await come_and_go(node)
            node.pass_time(window_seconds + 11)
            await node.until_empty()
            grown = objects() - before
        # Each token that was verified is remembered for a while.
        del grown["Principal"], grown["_VerifiedToken"]
        assert max(grown.values(), default=0) < _CHURN // 2, grown
