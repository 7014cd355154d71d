"""What users test their own code with: the server in memory, and recorded streams."""

import asyncio

import pytest

from floorcast import AuthenticationError, Client, ForbiddenError, Gap, TradesMessage
from floorcast.server import Scope
from floorcast.testing import RECORDED_MARKET, FakeServer, fake_server
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import PRICE


async def test_client_reads_what_the_test_publishes() -> None:
    async with fake_server() as server, Client(server.url, token=server.token()) as client:
        prices = client.market.prices("A")
        await server.publish("PRICE:A", PRICE)
        message = await anext(prices)
        assert message.data.last == "1.01"


def seq_of(received: TradesMessage | Gap) -> int:
    assert isinstance(received, TradesMessage)
    return received.seq


async def test_replayed_recording_reaches_the_client_whole() -> None:
    async with fake_server() as server, Client(server.url, token=server.token()) as client:
        trades = client.market.trades("BTCUSDT")
        async with client.market.book("BTCUSDT") as book:
            await server.publish("TRADES:BTCUSDT", {"trades": []})
            await anext(trades)
            await server.replay(RECORDED_MARKET)
            assert seq_of(await anext(trades)) == 2
            assert book.symbol == "BTCUSDT"


async def test_client_gets_what_it_missed_while_it_was_cut_off() -> None:
    async with fake_server() as server, Client(server.url, token=server.token()) as client:
        trades = client.market.trades("A")
        await server.wait_for_clients(1)
        trade = {"price": "1", "qty": "1", "side": "buy", "ts": 1}
        await server.publish("TRADES:A", {"trades": [{"id": 1, **trade}]})
        assert seq_of(await anext(trades)) == 1
        server.cut_connections()
        await server.publish("TRADES:A", {"trades": [{"id": 2, **trade}]})
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            assert seq_of(await anext(trades)) == 2


async def rejected(server: FakeServer) -> None:
    async with Client(server.url, token="nonsense"):
        pass


async def test_server_checks_tokens_and_scopes() -> None:
    async with fake_server() as server:
        with pytest.raises(AuthenticationError):
            await rejected(server)
        reader = server.token("bob", scopes=[Scope.MARKET_READ])
        async with Client(server.url, token=reader) as client:
            with pytest.raises(ForbiddenError):
                await client.market.publish("PRICE:A", PRICE)
