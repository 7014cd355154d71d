"""`client.market.will`: the server publishes messages once the user is gone."""

import asyncio

import pytest

from client_sdk import ForbiddenError, InvalidData, LimitExceeded, RequestRefused, SyncClient
from client_sdk.contract import Scope
from tests.kit.clients.sdk import abort_connections, client_of
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer, running

WILL = [{"topic": "PRICE:A", "data": {"bid": 1.5, "ask": 2, "last": 2, "volume": 0}}]


async def published(node: RunningServer) -> int:
    return (await node.server.backend.broker.head("PRICE:A")).seq


async def test_will_is_published_after_the_client_is_closed() -> None:
    async with running() as node:
        async with client_of(node) as client:
            await client.market.will(WILL, after_ms=2000)
        await node.until_empty()
        node.pass_time(2.1)
        await until(lambda: node.server.counters.total("wills.published"))
        assert await published(node) == 1
        entry = await node.server.backend.broker.latest("PRICE:A")
        assert entry is not None
        assert b'"bid":"1.5"' in entry.data


async def test_will_is_set_again_on_each_new_connection() -> None:
    async with running() as node:
        async with client_of(node) as client:
            await client.market.will(WILL, after_ms=2000)
            for number in (2, 3):
                abort_connections(node)
                await until(lambda number=number: _handled(node) == number)
                node.pass_time(5)
                assert await published(node) == 0
        await node.until_empty()
        node.pass_time(2.1)
        await until(lambda: node.server.counters.total("wills.published"))
        assert await published(node) == 1


def _handled(node: RunningServer) -> int:
    return node.server.counters.events().get(("/market", "will", "ok"), 0)


async def test_will_is_taken_back_for_good() -> None:
    async with running() as node:
        async with client_of(node) as client:
            await client.market.will(WILL, after_ms=2000)
            await client.market.will(None)
            abort_connections(node)
            await client.market.publish("PRICE:B", WILL[0]["data"])  # type: ignore[arg-type]
        await node.until_empty()
        node.pass_time(5)
        await asyncio.sleep(0)
        assert (await published(node), _handled(node)) == (0, 2)


async def test_refused_will_raises_its_error() -> None:
    async with running({"shares.wills_per_org": 1}) as node:
        reader = client_of(node, token=node.token(scopes=[Scope.MARKET_READ]))
        async with reader as client:
            with pytest.raises(ForbiddenError):
                await client.market.will(WILL, after_ms=1)
        async with client_of(node) as client:
            with pytest.raises(RequestRefused):
                await client.market.will([{"topic": "PRICE:A"}], after_ms=1)
            with pytest.raises(InvalidData):
                await client.market.will([{"topic": "X", "data": {"x": object()}}], after_ms=1)
            await client.market.will(WILL, after_ms=1)
        async with client_of(node, token=node.token("bob")) as other:
            with pytest.raises(LimitExceeded):
                await other.market.will(WILL, after_ms=1)


async def test_sync_client_sets_a_will() -> None:
    async with running() as node:

        def run() -> None:
            with SyncClient(node.url, node.token()) as client:
                client.market.will(WILL, after_ms=1000)

        await asyncio.to_thread(run)
        await node.until_empty()
        node.pass_time(1.1)
        await until(lambda: node.server.counters.total("wills.published"))
