"""Packets that have to wait keep their order, are bounded, and end with their connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.transport.websocket import WebSocketCarrier
from tests.access.forge import jwk, jwks, key_for, token
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient, masked
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer, running


def signed(kid: str, user: str = "ann") -> str:
    """A token whose key id the server may have to ask for."""
    return token(
        key=key_for("EdDSA"),
        algorithm="EdDSA",
        header={"kid": kid},
        scope="market:read session:join",
        sub=user,
        exp=2_000_000_000,
    )


@asynccontextmanager
async def slow_issuer() -> AsyncIterator[tuple[RunningServer, asyncio.Event]]:
    """A server whose issuer answers at once the first time, and then when it is let."""
    gate = asyncio.Event()
    asked = 0

    async def keys(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked > 1:
            await gate.wait()
        names = ["a"] if asked == 1 else ["a", "b"]
        return web.Response(body=jwks(*(jwk(key_for("EdDSA"), name) for name in names)))

    app = web.Application()
    app.router.add_get("/keys", keys)
    async with TestServer(app) as issuer:
        settings = {"auth.algorithm": "EdDSA", "auth.jwks_url": str(issuer.make_url("/keys"))}
        async with running({**settings, "limits.events_per_second": 0}) as floor:
            yield floor, gate
        # Who still asks is answered, or the issuer would wait for it to end.
        gate.set()


async def client_with_waiting_event(floor: RunningServer) -> RawClient:
    """A joined client, one of whose events waits for the issuer."""
    client = await RawClient.connect(floor.port, signed("a"))
    floor.clock.advance(11)
    client.send(f'42/market,1["refresh_token",{{"token":"{signed("b")}"}}]')
    await until(lambda: any(each.busy for each in floor.server.sockets.connections()))
    return client


async def test_events_behind_one_that_waits_are_answered_after_it_and_in_order() -> None:
    async with slow_issuer() as (floor, gate):
        client = await client_with_waiting_event(floor)
        for i in range(2, 200):
            client.send(f'42/market,{i}["subscriptions"]')
        other = await RawClient.connect(floor.port, signed("a", "bob"))
        assert (await other.call("subscriptions", {}))["ok"], "nobody else waits"
        gate.set()
        for i in range(1, 200):
            assert (await client.text()).startswith(f'43/market,{i}[{{"ok":true')
        for each in (client, other):
            each.cut()
        await floor.until_empty()


async def test_what_waits_for_one_client_is_bounded() -> None:
    async with slow_issuer() as (floor, _):
        client = await client_with_waiting_event(floor)
        event = masked(b'42/market,["subscriptions"]')
        for _ in range(100):
            client.send_bytes(event * 1000)
            await asyncio.sleep(0)
        [connection] = floor.server.sockets.connections()
        # One chunk of the socket, 256 KiB, may hold some thousands of small ones.
        assert 64 <= connection.waiting_count < 10_000
        connection.abort("the test is over")
        assert connection.waiting_count == 0
        await floor.until_empty()
        client.cut()


async def test_a_client_that_goes_while_its_event_waits_leaves_nothing() -> None:
    async with slow_issuer() as (floor, gate):
        client = await client_with_waiting_event(floor)
        client.send('42/market,2["subscribe",{"topics":["PRICE:A"]}]')
        client.cut()
        await floor.until_empty()
        gate.set()
        await asyncio.sleep(0)
        assert not any(floor.residue().values())


async def test_a_client_that_goes_while_its_token_is_judged_was_never_in() -> None:
    async with slow_issuer() as (floor, gate):
        (await client_with_waiting_event(floor)).cut()
        await floor.until_empty()
        client = await RawClient.open(floor.port)
        await client.text()
        client.send(f'40/market,{{"token":"{signed("b")}"}}')
        await until(lambda: any(each.busy for each in floor.server.sockets.connections()))
        client.cut()
        await floor.until_empty()
        gate.set()
        await asyncio.sleep(0)
        assert not any(floor.residue().values())


async def test_a_malformed_packet_behind_one_that_waits_ends_the_connection_at_once() -> None:
    async with slow_issuer() as (floor, _):
        client = await client_with_waiting_event(floor)
        client.send('42/market,2["subscriptions"]')
        client.send("4[[")
        await client.until_closed()
        await floor.until_empty()


async def test_ending_one_namespace_for_good_leaves_the_other() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.join(floor.token(), namespace="/session")
        [connection] = floor.server.sockets.connections()
        assert "/market,/session" in repr(connection)
        why = FloorcastError(ErrorCode.AUTH_FORBIDDEN, "kicked")
        connection.disconnect(why, reconnect=False, namespace="/session")
        event, goodbye = await client.event()
        assert (event, goodbye["reconnect"]) == ("goodbye", False)
        assert await client.text() == "41/session,"
        assert len(floor.server.registry) == 1
        assert (await client.call("subscriptions", {}))["ok"]
        connection.disconnect(why, reconnect=False)
        await client.event()
        assert await client.text() == "41/market,"
        await client.until_closed()
        await floor.until_empty()
        assert "closed" in repr(connection)
        connection.disconnect(why, reconnect=True)
        connection.close("again")
        connection.abort("and again")
        connection.close_soon()


async def test_events_on_their_way_when_a_namespace_ended_are_let_go() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.join(floor.token(), namespace="/session")
        [connection] = floor.server.sockets.connections()
        why = FloorcastError(ErrorCode.AUTH_FORBIDDEN, "kicked")
        connection.disconnect(why, reconnect=False, namespace="/session")
        client.send('42/session,9["join",{}]')
        client.send("41/session,")
        await client.event()
        await client.text()
        assert (await client.call("subscriptions", {}))["ok"]
        client.cut()
        await floor.until_empty()


@pytest.mark.parametrize("rubbish", ["40/market,{}", "43/market,1[]"])
async def test_a_second_connect_and_acks_that_nobody_asked_for_are_not_put_up_with(
    rubbish: str,
) -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        for _ in range(65):
            client.send(rubbish)
        await client.until_closed()
        await floor.until_empty()


async def test_a_joined_client_may_be_refused_elsewhere_but_not_for_ever() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        for _ in range(9):
            client.send('40/session,{"token":"x"}')
            assert (await client.text()).startswith("44/session,")
        floor.pass_time(1.1)
        assert (await client.call("subscriptions", {}))["ok"]
        client.send('40/session,{"token":"x"}')
        await client.text()
        floor.pass_time(1.1)
        await client.until_closed()
        await floor.until_empty()


async def test_who_reads_no_answer_is_given_no_more_of_them_until_it_reads() -> None:
    bids = [[f"{level}.00000001", "1.00000000"] for level in range(1, 201)]
    topics = [f"ORDERBOOK:S{number}" for number in range(16)]
    async with running({"limits.events_per_second": 0}) as floor:
        for topic in topics:
            await floor.server.publishing.publish(
                topic, {"bids": bids, "asks": []}, kind="snapshot"
            )
        client = await RawClient.connect(floor.port, floor.token())
        [connection] = floor.server.sockets.connections()
        client.pause_reading()
        subscribe = json.dumps(["subscribe", {"topics": topics}])
        frames = [masked(f"42/market,{number}{subscribe}".encode()) for number in range(200)]
        # As one piece of the network: pausing the reader of the socket comes too late for it.
        client.send_bytes(b"".join(frames))
        await until(lambda: connection.waiting_count)
        await asyncio.sleep(0.05)
        assert connection.buffered_bytes < 512 * 1024, "not two hundred answers"
        client.resume_reading()
        for number in range(200):
            assert (await client.text()).startswith(f"43/market,{number}[")
        client.cut()
        await floor.until_empty()


async def test_an_answer_and_a_message_of_the_same_turn_are_one_write_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as floor:
        member = await SessionClient.connect(floor, "ann", "room")
        [connection] = floor.server.sockets.connections()
        written: list[bytes] = []
        real = WebSocketCarrier.write

        def write(carrier: WebSocketCarrier, frames: bytes) -> None:
            written.append(frames)
            real(carrier, frames)

        monkeypatch.setattr(WebSocketCarrier, "write", write)
        # The way to the carrier was bound before it was watched.
        assert connection.carrier is not None
        connection.use_carrier(connection.carrier)
        await member.call("send", session_id="room", data={"n": 1})
        await member.next("message")
        assert len(written) == 1
        assert written[0].index(b"43/session,7") < written[0].index(b'"message"')
        connection.write_soon(b"\x81\x01x")
        connection.close("the answer still goes out")
        assert b"\x81\x01x" in await member.client.until_closed()
        await floor.until_empty()
