"""Tests heartbeats, timeouts and slow consumers of connections."""

import asyncio
import json

import pytest

from tests.kit.clients.wire import RawClient, masked
from tests.kit.server.in_process import PRICE, running


@pytest.mark.behaviour("C6")
@pytest.mark.behaviour("D47")
async def test_client_that_answers_pings_stays_connected() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        for _ in range(5):
            node.pass_time(25)
            assert await client.text() == "2"
            client.send("3")
            await client.call("subscriptions", {})
        assert node.residue()["sockets"] == 1
        client.cut()
        await node.until_empty()


@pytest.mark.behaviour("C7")
@pytest.mark.behaviour("A13")
@pytest.mark.behaviour("A14")
async def test_unanswered_ping_closes_the_client_after_the_timeout() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        node.pass_time(25)
        assert await client.text() == "2"
        node.pass_time(19.9)
        assert node.residue()["sockets"] == 1
        node.pass_time(0.2)
        await client.until_closed()
        await node.until_empty()


async def test_join_timeout_closes_a_client_that_never_joins() -> None:
    async with running({"limits.join_timeout_seconds": 20}) as node:
        client = await RawClient.open(node.port)
        await client.text()
        node.pass_time(19.9)
        assert node.residue()["sockets"] == 1
        node.pass_time(0.2)
        await client.until_closed()
        await node.until_empty()


async def test_join_timeout_closes_a_client_that_left_its_namespace() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        client.send("41/market,")
        while node.residue()["registry"]:
            await asyncio.sleep(0)
        node.pass_time(25)
        client.send("3")
        await client.text()
        node.pass_time(45)
        await client.until_closed()
        await node.until_empty()


async def test_unsolicited_pong_closes_the_connection() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        client.send("3")
        await client.until_closed()
        await node.until_empty()


async def test_client_that_sends_pongs_but_reads_nothing_is_aborted() -> None:
    async with running({"delivery.buffer_bytes": 50_000_000}) as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        client.pause_reading()
        body = {**PRICE, "note": "x" * 30_000}
        connection = node.server.sockets.connections()[0]
        while connection.buffered_bytes < 1_000_000:
            await node.server.market.publishing.publish("PRICE:BTCUSDT", body)
            await asyncio.sleep(0)
        for _ in range(2):
            node.pass_time(25)
            # The client has not read the ping: this pong is forged.
            client.send("3")
            for _ in range(20):
                await asyncio.sleep(0)
        node.pass_time(25)
        await node.until_empty()
        client.cut()


async def test_slow_consumer_gets_nothing_more_and_is_disconnected() -> None:
    async with running({"delivery.buffer_bytes": 200_000}) as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        client.pause_reading()
        body = {**PRICE, "note": "x" * 30_000}
        connection = node.server.sockets.connections()[0]
        while not connection.clogged:
            await node.server.market.publishing.publish("PRICE:BTCUSDT", body)
            await asyncio.sleep(0)
        held = connection.buffered_bytes
        assert held <= 200_000
        for _ in range(100):
            await node.server.market.publishing.publish("PRICE:BTCUSDT", body)
            await asyncio.sleep(0)
        assert connection.buffered_bytes <= held
        for _ in range(31):
            node.pass_time(1.0)
        assert connection.closed
        assert node.server.counters.total("delivery.overloaded") == 1
        node.pass_time(1.1)
        await node.until_empty()
        client.cut()


async def test_client_that_reads_again_catches_up_at_once() -> None:
    async with running({"delivery.buffer_bytes": 200_000}) as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        client.pause_reading()
        body = {**PRICE, "note": "x" * 30_000}
        connection = node.server.sockets.connections()[0]
        published = 0
        while not connection.clogged or published % 50:
            published += 1
            await node.server.market.publishing.publish(
                "PRICE:BTCUSDT", {**body, "last": str(published)}
            )
            await asyncio.sleep(0)
        node.pass_time(20)
        client.resume_reading()
        seen = 0
        while seen < published:
            _, message = await client.event()
            assert message["prev"] == seen
            seen = message["seq"]
        assert message["data"]["last"] == str(published)
        assert message["merged"] == published - message["prev"]
        assert message["age_ms"] == 20_000
        client.cut()
        await node.until_empty()


async def test_ping_timeout_of_a_clogged_client_extends_once() -> None:
    async with running({"delivery.buffer_bytes": 200_000}) as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        client.pause_reading()
        connection = node.server.sockets.connections()[0]
        while not connection.clogged:
            await node.server.market.publishing.publish(
                "PRICE:BTCUSDT", {**PRICE, "note": "x" * 30_000}
            )
            await asyncio.sleep(0)
        node.pass_time(25)
        node.pass_time(20)
        assert node.residue()["sockets"] == 1
        node.pass_time(20)
        await node.until_empty()
        client.cut()


async def test_server_stops_reading_a_client_that_reads_no_replies() -> None:
    async with running({"delivery.buffer_bytes": 100_000, "limits.events_per_second": 0}) as node:
        client = await RawClient.connect(node.port, node.token())
        client.pause_reading()
        connection = node.server.sockets.connections()[0]
        topics = [f"NOSUCH:{'x' * 70}{i}" for i in range(200)]
        question = masked(f"42/market,1{json.dumps(['subscribe', {'topics': topics}])}".encode())
        for _ in range(600):
            client.send_bytes(question)
            await asyncio.sleep(0)
        held = connection.buffered_bytes
        assert 100_000 < held < 200_000
        for _ in range(50):
            client.send_bytes(question)
            await asyncio.sleep(0)
        assert connection.buffered_bytes <= held
        client.resume_reading()
        while connection.buffered_bytes:
            await client.reader.read(1 << 20)
        client.cut()
        await node.until_empty()


async def test_too_many_control_frames_close_the_connection() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        client.send_bytes(masked(b"", first=0x89) * 100)
        await client.until_closed()
        await node.until_empty()


async def test_server_answers_websocket_pings() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        client.send_bytes(masked(b"hello", first=0x89))
        assert await client.frame() == (0xA, b"hello")
        client.cut()
        await node.until_empty()


@pytest.mark.parametrize("frame", [masked(b"\x03\xe8bye", first=0x88), masked(b"", first=0x88)])
async def test_server_answers_a_close_frame(frame: bytes) -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        client.send_bytes(frame + masked(b'42/market,1["subscriptions"]'))
        assert await client.until_closed() == b"\x88\x02\x03\xe8"
        await node.until_empty()


async def test_few_unsolicited_websocket_pongs_are_ignored() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        client.send_bytes(masked(b"", first=0x8A) * 10)
        assert (await client.call("subscriptions", {}))["ok"]
        client.send_bytes(masked(b"", first=0x8A) * 100)
        await client.until_closed()
        await node.until_empty()
