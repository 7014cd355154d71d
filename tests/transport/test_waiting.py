"""Tests packets that wait behind a suspended handler, and disconnects meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from client_sdk.contract import ErrorCode
from server.core.disconnects import DisconnectReason
from server.core.errors import FloorcastError
from server.core.wire.frames import text_frame
from server.transport.websocket import WebSocketCarrier
from tests.access.forge import jwk, jwks, key_for, token
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient, masked
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer, running


def signed(kid: str, user: str = "ann") -> str:
    """A token with a key id that the server may have to fetch."""
    return token(
        key=key_for("EdDSA"),
        algorithm="EdDSA",
        header={"kid": kid},
        scope="market:read session:join",
        sub=user,
        exp=2_000_000_000,
    )


@asynccontextmanager
async def slow_issuer(
    limits: dict[str, object] | None = None,
) -> AsyncIterator[tuple[RunningServer, asyncio.Event]]:
    """A server whose issuer answers the first request at once, and others after the gate opens."""
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
        async with running({**settings, "limits.events_per_second": 0, **(limits or {})}) as node:
            yield node, gate
        # Answer open requests, or the issuer would wait for them.
        gate.set()


async def client_with_waiting_event(node: RunningServer) -> RawClient:
    """A joined client with an event that waits for the issuer."""
    client = await RawClient.connect(node.port, signed("a"))
    node.clock.advance(11)
    client.send(f'42/market,1["refresh_token",{{"token":"{signed("b")}"}}]')
    await until(lambda: any(each.busy for each in node.server.sockets.connections()))
    return client


async def test_waiting_events_are_answered_in_order() -> None:
    async with slow_issuer() as (node, gate):
        client = await client_with_waiting_event(node)
        for i in range(2, 200):
            client.send(f'42/market,{i}["subscriptions"]')
        other = await RawClient.connect(node.port, signed("a", "bob"))
        assert (await other.call("subscriptions", {}))["ok"], "another client waits"
        gate.set()
        for i in range(1, 200):
            assert (await client.text()).startswith(f'43/market,{i}[{{"ok":true')
        for each in (client, other):
            each.cut()
        await node.until_empty()


async def test_event_is_judged_by_the_rate_when_it_is_received() -> None:
    limits: dict[str, object] = {"limits.events_per_second": 10, "limits.event_burst": 5}
    async with slow_issuer(limits) as (node, gate):
        client = await client_with_waiting_event(node)
        for number in range(2, 8):
            client.send(f'42/market,{number}["subscriptions"]')
        # The fifth after the one that waits: refused before any of those is handled.
        text = await client.text()
        assert text.startswith('43/market,6[{"ok":false,"error":{"code":"limit.rate"')
        assert (await client.text()).startswith("43/market,7[")
        [connection] = node.server.sockets.connections()
        assert connection.waiting_count == 4
        refused = node.server.counters.events()[("/market", "subscriptions", "limit.rate")]
        assert refused == 2
        gate.set()
        for number in range(1, 6):
            assert (await client.text()).startswith(f'43/market,{number}[{{"ok":true')
        client.cut()
        await node.until_empty()


async def test_waiting_packets_of_a_client_are_bounded() -> None:
    async with slow_issuer() as (node, _):
        client = await client_with_waiting_event(node)
        event = masked(b'42/market,["subscriptions"]')
        for _ in range(100):
            client.send_bytes(event * 1000)
            await asyncio.sleep(0)
        [connection] = node.server.sockets.connections()
        # One chunk of the socket, 256 KiB, can hold thousands of small packets.
        assert 64 <= connection.waiting_count < 100
        connection.abort("the test is over")
        assert connection.waiting_count == 0
        await node.until_empty()
        client.cut()


async def test_client_that_leaves_during_an_event_leaves_no_state() -> None:
    async with slow_issuer() as (node, gate):
        client = await client_with_waiting_event(node)
        client.send('42/market,2["subscribe",{"topics":["PRICE:A"]}]')
        client.cut()
        await node.until_empty()
        gate.set()
        await asyncio.sleep(0)
        assert not any(node.residue().values())


async def test_client_that_leaves_during_verification_never_joins() -> None:
    async with slow_issuer() as (node, gate):
        (await client_with_waiting_event(node)).cut()
        await node.until_empty()
        client = await RawClient.open(node.port)
        await client.text()
        client.send(f'40/market,{{"token":"{signed("b")}"}}')
        await until(lambda: any(each.busy for each in node.server.sockets.connections()))
        client.cut()
        await node.until_empty()
        gate.set()
        await asyncio.sleep(0)
        assert not any(node.residue().values())


async def test_malformed_packet_closes_even_if_another_waits() -> None:
    async with slow_issuer() as (node, _):
        client = await client_with_waiting_event(node)
        client.send('42/market,2["subscriptions"]')
        client.send("4[[")
        await client.until_closed()
        await node.until_empty()


async def test_disconnecting_one_namespace_keeps_the_other() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        await client.join(node.token(), namespace="/session")
        [connection] = node.server.sockets.connections()
        assert "/market,/session" in repr(connection)
        why = FloorcastError(ErrorCode.AUTH_FORBIDDEN, "kicked")
        connection.disconnect(why, reconnect=False, namespace="/session")
        event, goodbye = await client.event()
        assert (event, goodbye["reconnect"]) == ("goodbye", False)
        assert await client.text() == "41/session,"
        assert len(node.server.clients.registry) == 1
        assert (await client.call("subscriptions", {}))["ok"]
        connection.disconnect(why, reconnect=False)
        await client.event()
        assert await client.text() == "41/market,"
        await client.until_closed()
        await node.until_empty()
        assert "closed" in repr(connection)
        connection.disconnect(why, reconnect=True)
        connection.close(DisconnectReason("again"))
        connection.abort("and again")
        connection.close_soon()


async def test_events_for_a_left_namespace_are_ignored() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        await client.join(node.token(), namespace="/session")
        [connection] = node.server.sockets.connections()
        why = FloorcastError(ErrorCode.AUTH_FORBIDDEN, "kicked")
        connection.disconnect(why, reconnect=False, namespace="/session")
        client.send('42/session,9["join",{}]')
        client.send("41/session,")
        await client.event()
        await client.text()
        assert (await client.call("subscriptions", {}))["ok"]
        client.cut()
        await node.until_empty()


async def test_second_connect_is_answered_like_the_first() -> None:
    async with running() as node:
        client = await RawClient.open(node.port)
        await client.text()
        connect = f"40/session,{json.dumps({'token': node.token(), 'session_id': 'room'})}"
        # React's StrictMode mounts a page twice at once.
        client.send(connect)
        client.send(connect)
        first, (event, welcome) = await client.text(), await client.event()
        assert event == "welcome"
        assert "pid" in json.loads(first.removeprefix("40/session,"))
        # The greeting of /session goes on; the second answer follows it.
        answers = [await client.text()]
        while not answers[-1].startswith("40/session,"):
            answers.append(await client.text())
        assert answers[-1] == first
        assert await client.event() == ("welcome", welcome)
        assert len(node.server.clients.registry) == 1
        reply = await client.call("participants", {"session_id": "room"}, namespace="/session")
        assert reply["participant_count"] == 1
        client.cut()


@pytest.mark.parametrize("packet", ["40/market,{}", "43/market,1[]"])
async def test_second_connect_and_forged_acks_close_the_connection(
    packet: str,
) -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        for _ in range(65):
            client.send(packet)
        await client.until_closed()
        await node.until_empty()


async def test_too_many_refusals_close_a_joined_client() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        for _ in range(9):
            client.send('40/session,{"token":"x"}')
            assert (await client.text()).startswith("44/session,")
        node.pass_time(1.1)
        assert (await client.call("subscriptions", {}))["ok"]
        client.send('40/session,{"token":"x"}')
        await client.text()
        node.pass_time(1.1)
        await client.until_closed()
        await node.until_empty()


async def test_client_that_reads_no_replies_gets_no_more_until_it_reads() -> None:
    bids = [[f"{level}.00000001", "1.00000000"] for level in range(1, 201)]
    topics = [f"ORDERBOOK:S{number}" for number in range(16)]
    async with running({"limits.events_per_second": 0}) as node:
        for topic in topics:
            await node.server.market.publishing.publish(
                topic, {"bids": bids, "asks": []}, kind="snapshot"
            )
        client = await RawClient.connect(node.port, node.token())
        [connection] = node.server.sockets.connections()
        client.pause_reading()
        subscribe = json.dumps(["subscribe", {"topics": topics}])
        frames = [masked(f"42/market,{number}{subscribe}".encode()) for number in range(200)]
        # In one chunk, so that pausing the reading comes too late.
        client.send_bytes(b"".join(frames))
        await until(lambda: connection.waiting_count)
        await asyncio.sleep(0.05)
        assert connection.buffered_bytes < 512 * 1024, "two hundred replies are buffered"
        client.resume_reading()
        for number in range(200):
            assert (await client.text()).startswith(f"43/market,{number}[")
        client.cut()
        await node.until_empty()


async def test_ack_and_echoed_message_share_one_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as node:
        member = await SessionClient.connect(node, "ann", "room")
        [connection] = node.server.sockets.connections()
        written: list[bytes] = []
        real = WebSocketCarrier.write

        def write(carrier: WebSocketCarrier, frames: bytes) -> None:
            written.append(frames)
            real(carrier, frames)

        monkeypatch.setattr(
            WebSocketCarrier, "plain_write", property(lambda carrier: partial(write, carrier))
        )
        # Rebinds `connection.write` to the patched method.
        assert connection.carrier is not None
        connection.use_carrier(connection.carrier)
        await member.call("send", session_id="room", data={"n": 1})
        await member.next("message")
        assert len(written) == 1
        assert written[0].index(b"43/session,7") < written[0].index(b'"message"')
        connection.write_soon(b"\x81\x01x")
        connection.close(DisconnectReason("the answer still goes out"))
        assert b"\x81\x01x" in await member.client.until_closed()
        await node.until_empty()


async def test_failed_write_at_the_end_of_a_turn_ends_only_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as node:
        members = [await SessionClient.connect(node, each, each) for each in ("ann", "bob")]
        broken, other = node.server.sockets.connections()

        def fail(frames: bytes) -> None:
            raise OSError("broken pipe")

        def plain_write(carrier: WebSocketCarrier) -> Callable[[bytes], None]:
            return fail if carrier is broken.carrier else carrier.write

        monkeypatch.setattr(WebSocketCarrier, "plain_write", property(plain_write))
        for each in (broken, other):
            each.write_soon(text_frame(b"6"))
        assert await members[1].client.text() == "6"
        assert (broken.closed, other.closed) == (True, False)
        members[1].client.cut()
        members[0].client.cut()
        await node.until_empty()


async def test_held_frames_precede_whatever_is_written_later() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        [connection] = node.server.sockets.connections()
        connection.hold(b"\x81\x01a")
        connection.hold(b"\x81\x01b")
        assert connection.buffered_bytes >= 6
        await client.call("subscriptions", {})
        connection.hold(b"\x81\x01c")
        connection.release()
        connection.release()
        connection.hold(b"\x81\x01d")
        connection.close(DisconnectReason("what is held still goes out"))
        assert await client.until_closed() == b"\x81\x01c\x81\x01d\x88\x02\x03\xe8"
        await node.until_empty()
