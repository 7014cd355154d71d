"""Connections that are silent, deaf or never come in are ended, and nothing stays behind."""

import asyncio
import json

import pytest

from tests.kit.clients.wire import RawClient, masked
from tests.kit.server.in_process import PRICE, running


@pytest.mark.behaviour("C6")
@pytest.mark.behaviour("D47")
async def test_a_connection_is_pinged_every_interval_and_lives_while_it_answers() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        for _ in range(5):
            floor.pass_time(25)
            assert await client.text() == "2"
            client.send("3")
            await client.call("subscriptions", {})
        assert floor.residue()["sockets"] == 1
        client.cut()
        await floor.until_empty()


@pytest.mark.behaviour("C7")
@pytest.mark.behaviour("A13")
@pytest.mark.behaviour("A14")
async def test_a_client_that_does_not_answer_a_ping_is_closed_when_the_timeout_has_passed() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        floor.pass_time(25)
        assert await client.text() == "2"
        floor.pass_time(19.9)
        assert floor.residue()["sockets"] == 1
        floor.pass_time(0.2)
        await client.until_closed()
        await floor.until_empty()


async def test_a_client_that_never_joins_is_closed_after_the_join_timeout() -> None:
    async with running({"limits.join_timeout_seconds": 20}) as floor:
        client = await RawClient.open(floor.port)
        await client.text()
        floor.pass_time(19.9)
        assert floor.residue()["sockets"] == 1
        floor.pass_time(0.2)
        await client.until_closed()
        await floor.until_empty()


async def test_a_client_that_has_left_its_only_namespace_does_not_stay_for_ever() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        client.send("41/market,")
        while floor.residue()["registry"]:
            await asyncio.sleep(0)
        floor.pass_time(25)
        client.send("3")
        await client.text()
        floor.pass_time(45)
        await client.until_closed()
        await floor.until_empty()


async def test_a_pong_that_no_ping_asked_for_ends_the_connection() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        client.send("3")
        await client.until_closed()
        await floor.until_empty()


async def test_a_client_that_answers_pings_but_reads_nothing_is_dropped() -> None:
    async with running({"delivery.buffer_bytes": 50_000_000}) as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        client.pause_reading()
        body = {**PRICE, "note": "x" * 30_000}
        connection = floor.server.sockets.connections()[0]
        while connection.buffered_bytes < 1_000_000:
            await floor.server.publishing.publish("PRICE:BTCUSDT", body)
            await asyncio.sleep(0)
        for _ in range(2):
            floor.pass_time(25)
            # It cannot have seen the ping: the answer is forged, and comes in time.
            client.send("3")
            for _ in range(20):
                await asyncio.sleep(0)
        floor.pass_time(25)
        await floor.until_empty()
        client.cut()


async def test_a_client_over_the_byte_cap_gets_no_more_and_is_ended_if_it_takes_nothing() -> None:
    async with running({"delivery.buffer_bytes": 200_000}) as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        client.pause_reading()
        body = {**PRICE, "note": "x" * 30_000}
        connection = floor.server.sockets.connections()[0]
        while not connection.clogged:
            await floor.server.publishing.publish("PRICE:BTCUSDT", body)
            await asyncio.sleep(0)
        held = connection.buffered_bytes
        assert held <= 200_000
        for _ in range(100):
            await floor.server.publishing.publish("PRICE:BTCUSDT", body)
            await asyncio.sleep(0)
        assert connection.buffered_bytes <= held
        for _ in range(31):
            floor.pass_time(1.0)
        assert connection.closed
        assert floor.server.counters.total("delivery.overloaded") == 1
        floor.pass_time(1.1)
        await floor.until_empty()
        client.cut()


async def test_a_client_that_reads_again_is_brought_up_to_date_at_once() -> None:
    async with running({"delivery.buffer_bytes": 200_000}) as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        client.pause_reading()
        body = {**PRICE, "note": "x" * 30_000}
        connection = floor.server.sockets.connections()[0]
        published = 0
        while not connection.clogged or published % 50:
            published += 1
            await floor.server.publishing.publish("PRICE:BTCUSDT", {**body, "last": str(published)})
            await asyncio.sleep(0)
        floor.pass_time(20)
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
        await floor.until_empty()


async def test_a_ping_behind_what_the_client_has_not_read_gets_its_time_once_more() -> None:
    async with running({"delivery.buffer_bytes": 200_000}) as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        client.pause_reading()
        connection = floor.server.sockets.connections()[0]
        while not connection.clogged:
            await floor.server.publishing.publish("PRICE:BTCUSDT", {**PRICE, "note": "x" * 30_000})
            await asyncio.sleep(0)
        floor.pass_time(25)
        floor.pass_time(20)
        assert floor.residue()["sockets"] == 1
        floor.pass_time(20)
        await floor.until_empty()
        client.cut()


async def test_a_client_that_does_not_read_its_answers_is_not_read_either() -> None:
    async with running({"delivery.buffer_bytes": 100_000, "limits.events_per_second": 0}) as floor:
        client = await RawClient.connect(floor.port, floor.token())
        client.pause_reading()
        connection = floor.server.sockets.connections()[0]
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
        await floor.until_empty()


async def test_many_control_frames_between_two_pings_end_the_connection() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        client.send_bytes(masked(b"", first=0x89) * 100)
        await client.until_closed()
        await floor.until_empty()


async def test_a_few_websocket_pings_are_answered() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        client.send_bytes(masked(b"hello", first=0x89))
        assert await client.frame() == (0xA, b"hello")
        client.cut()
        await floor.until_empty()


@pytest.mark.parametrize("frame", [masked(b"\x03\xe8bye", first=0x88), masked(b"", first=0x88)])
async def test_a_client_that_closes_its_websocket_is_answered_and_gone(frame: bytes) -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        client.send_bytes(frame + masked(b'42/market,1["subscriptions"]'))
        assert await client.until_closed() == b"\x88\x02\x03\xe8"
        await floor.until_empty()


async def test_unasked_websocket_pongs_are_let_go_unless_there_are_many() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        client.send_bytes(masked(b"", first=0x8A) * 10)
        assert (await client.call("subscriptions", {}))["ok"]
        client.send_bytes(masked(b"", first=0x8A) * 100)
        await client.until_closed()
        await floor.until_empty()
