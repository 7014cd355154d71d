"""Test the fault proxy: each fault takes effect and leaves nothing."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from tests.kit.network.faults import Chaos, Fault, Step, plan
from tests.kit.network.tcp_proxy import Connection, Direction, Proxy, Streams
from tests.kit.patience import MAX_WAIT_SECONDS, until


@dataclass(frozen=True, slots=True)
class ProxiedConnection:
    """A client and a server connected through the proxy."""

    proxy: Proxy
    client_reader: asyncio.StreamReader
    client: asyncio.StreamWriter
    server_reader: asyncio.StreamReader
    server: asyncio.StreamWriter

    @property
    def connection(self) -> Connection:
        return self.proxy.connections[0]


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[tuple[int, asyncio.Queue[Streams]]]:
    """A server that only accepts; yields its port and its accepted streams."""
    accepted: asyncio.Queue[Streams] = asyncio.Queue()
    ends: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], accepted
    finally:
        server.close()
        for end in ends:
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()


@contextlib.asynccontextmanager
async def proxied_connection(
    on_connection: Callable[[Connection], None] | None = None,
) -> AsyncIterator[ProxiedConnection]:
    """One connection through a proxy."""
    async with (
        asyncio.timeout(MAX_WAIT_SECONDS),
        upstream() as (port, accepted),
        Proxy(port) as proxy,
    ):
        proxy.on_connection = on_connection
        async with connect_client(proxy) as (reader, writer):
            server = await accepted.get()
            await until(lambda: bool(proxy.connections))
            yield ProxiedConnection(proxy, reader, writer, *server)


@contextlib.asynccontextmanager
async def connect_client(proxy: Proxy) -> AsyncIterator[Streams]:
    """A client's connection to the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_proxy_forwards_data_and_close_both_ways() -> None:
    async with proxied_connection() as link:
        link.client.write(b"question")
        assert await link.server_reader.read(100) == b"question"
        link.server.write(b"answer")
        assert await link.client_reader.read(100) == b"answer"
        link.client.write_eof()
        assert await link.server_reader.read() == b""
        link.server.write(b"last bytes")
        link.server.close()
        assert await link.client_reader.read() == b"last bytes"
        await until(lambda: not link.proxy.connections)


async def test_proxy_applies_backpressure() -> None:
    sent = bytes(range(256)) * 20_000
    async with proxied_connection() as link:
        link.server.write(sent)
        assert await link.client_reader.readexactly(len(sent)) == sent
        assert link.connection.down.passed_bytes == len(sent)


async def test_cut_closes_both_sides() -> None:
    async with proxied_connection() as link:
        link.proxy.cut_all()
        assert await link.client_reader.read() == b""
        assert await link.server_reader.read() == b""
        await until(lambda: not link.proxy.connections)


async def test_reset_raises_on_both_sides() -> None:
    async with proxied_connection() as link:
        link.connection.reset()
        for reader in (link.client_reader, link.server_reader):
            with pytest.raises(ConnectionResetError):
                await reader.read()


async def test_reset_by_one_side_resets_the_other() -> None:
    async with proxied_connection() as link:
        at_once = struct.pack("ii", 1, 0)
        client = link.client.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        link.client.transport.abort()
        with pytest.raises(ConnectionResetError):
            await link.server_reader.read()


async def test_cut_in_a_frame_forwards_exactly_the_given_bytes() -> None:
    async with proxied_connection() as link:
        link.connection.cut_after(7, Direction.DOWN)
        link.server.write(b"abc")
        assert await link.client_reader.readexactly(3) == b"abc"
        link.server.write(b"defghij")
        assert await link.client_reader.read() == b"defg"
        assert await link.server_reader.read() == b""


async def test_blackhole_drops_both_directions_and_stays_open() -> None:
    async with proxied_connection() as link:
        link.connection.blackhole()
        link.client.write(b"lost")
        link.server.write(b"lost")
        for reader in (link.client_reader, link.server_reader):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.02)
        assert link.proxy.connections


async def test_one_way_blackhole_leaves_the_other_direction_open() -> None:
    async with proxied_connection() as link:
        link.connection.blackhole(Direction.UP)
        link.client.write(b"lost")
        link.server.write(b"received")
        assert await link.client_reader.read(100) == b"received"
        link.server.close()
        assert await link.client_reader.read() == b""


async def test_blackhole_hides_the_close_of_a_client() -> None:
    async with proxied_connection() as link:
        link.connection.blackhole()
        link.client.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(link.server_reader.read(1), 0.02)


@pytest.mark.parametrize("direction", Direction)
async def test_half_close_ends_one_direction_only(direction: Direction) -> None:
    async with proxied_connection() as link:
        link.connection.half_close(direction)
        ends = [
            (link.client, link.server_reader),
            (link.server, link.client_reader),
        ]
        (_, ended), (sender, receiver) = ends if direction is Direction.UP else ends[::-1]
        assert await ended.read() == b""
        sender.write(b"received")
        assert await receiver.read(100) == b"received"


async def test_delay_holds_chunks_until_it_is_cleared() -> None:
    async with proxied_connection() as link:
        loop = asyncio.get_running_loop()
        link.connection.delay(0.05, Direction.DOWN)
        began = loop.time()
        link.server.write(b"late")
        assert await link.client_reader.read(100) == b"late"
        # A loop's clock counts in milliseconds.
        assert loop.time() - began > 0.045
        link.connection.delay(1000)
        link.connection.delay(0)
        link.server.write(b"at once")
        assert await link.client_reader.read(100) == b"at once"


async def test_throttle_limits_the_byte_rate() -> None:
    async with proxied_connection(lambda connection: connection.throttle(10_000)) as link:
        loop = asyncio.get_running_loop()
        began = loop.time()
        link.server.write(bytes(1000))
        await link.client_reader.readexactly(1000)
        # The delay after the last of the five chunks is not part of the read.
        assert loop.time() - began >= 0.07


async def test_refused_port_accepts_again_later() -> None:
    async with (
        asyncio.timeout(MAX_WAIT_SECONDS),
        upstream() as (port, accepted),
        Proxy(port) as proxy,
    ):
        proxy.refuse()
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.accept()
        async with connect_client(proxy):
            await accepted.get()
        assert proxy.accepted_count == 1


async def test_refuse_keeps_open_connections() -> None:
    async with proxied_connection() as link:
        link.proxy.refuse()
        link.server.write(b"received")
        assert await link.client_reader.read(100) == b"received"


async def test_proxy_follows_a_changed_upstream_port() -> None:
    async with proxied_connection() as link, upstream() as (port, accepted):
        link.proxy.upstream_port = port
        async with connect_client(link.proxy) as (reader, _):
            _, server = await accepted.get()
            server.write(b"from the other")
            assert await reader.read(100) == b"from the other"


async def test_absent_server_resets_the_client() -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        async with upstream() as (port, _):
            pass
        async with Proxy(port) as proxy, connect_client(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await until(lambda: not proxy.connections)


async def test_on_connection_sets_a_fault_before_the_first_byte() -> None:
    async with proxied_connection(on_connection=lambda connection: connection.cut_after(2)) as link:
        link.server.write(b"welcome")
        assert await link.client_reader.read() == b"we"


async def test_closed_proxy_leaves_no_tasks() -> None:
    before = asyncio.all_tasks()
    async with proxied_connection() as link:
        link.connection.blackhole()
        link.connection.throttle(1)
        link.server.write(bytes(100_000))
        async with connect_client(link.proxy):
            await until(lambda: len(link.proxy.connections) == 2)
    assert asyncio.all_tasks() == before


def test_plan_depends_on_its_seed_and_has_every_fault() -> None:
    steps = plan(7, len(Fault))
    assert plan(7, len(Fault)) == steps != plan(8, len(Fault))
    assert {step.fault for step in steps} == set(Fault)


@pytest.mark.parametrize("fault", Fault)
async def test_chaos_applies_each_fault_and_restores_the_network(fault: Fault) -> None:
    async with proxied_connection() as link:
        chaos = Chaos(link.proxy, [Step(0.001, fault, 0.01, 0.5, Direction.DOWN, 1)])
        link.server.write(b"12")
        await chaos.run()
        assert chaos.counts == {fault: 1}
        await until(lambda: not link.proxy.connections)
        async with connect_client(link.proxy):
            await until(lambda: len(link.proxy.connections) == 1)
