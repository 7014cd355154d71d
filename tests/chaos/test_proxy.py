"""The proxy of the chaos tests: each fault does what it says, and nothing is left of it."""

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
    """A client and a server with the proxy between them."""

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
    """A server that does nothing but accept; its port, and its ends of the connections."""
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


async def test_what_either_side_says_reaches_the_other_and_so_does_its_end() -> None:
    async with proxied_connection() as there:
        there.client.write(b"question")
        assert await there.server_reader.read(100) == b"question"
        there.server.write(b"answer")
        assert await there.client_reader.read(100) == b"answer"
        there.client.write_eof()
        assert await there.server_reader.read() == b""
        there.server.write(b"last word")
        there.server.close()
        assert await there.client_reader.read() == b"last word"
        await until(lambda: not there.proxy.connections)


async def test_more_than_fits_waits_for_who_reads() -> None:
    sent = bytes(range(256)) * 20_000
    async with proxied_connection() as there:
        there.server.write(sent)
        assert await there.client_reader.readexactly(len(sent)) == sent
        assert there.connection.down.passed_bytes == len(sent)


async def test_a_cut_ends_both_sides() -> None:
    async with proxied_connection() as there:
        there.proxy.cut_all()
        assert await there.client_reader.read() == b""
        assert await there.server_reader.read() == b""
        await until(lambda: not there.proxy.connections)


async def test_a_reset_is_an_error_on_both_sides() -> None:
    async with proxied_connection() as there:
        there.connection.reset()
        for reader in (there.client_reader, there.server_reader):
            with pytest.raises(ConnectionResetError):
                await reader.read()


async def test_a_reset_by_one_side_is_one_for_the_other() -> None:
    async with proxied_connection() as there:
        at_once = struct.pack("ii", 1, 0)
        client = there.client.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        there.client.transport.abort()
        with pytest.raises(ConnectionResetError):
            await there.server_reader.read()


async def test_a_cut_in_a_frame_lets_just_so_many_bytes_pass() -> None:
    async with proxied_connection() as there:
        there.connection.cut_after(7, Direction.DOWN)
        there.server.write(b"abc")
        assert await there.client_reader.readexactly(3) == b"abc"
        there.server.write(b"defghij")
        assert await there.client_reader.read() == b"defg"
        assert await there.server_reader.read() == b""


async def test_a_black_hole_swallows_both_ways_and_stays_open() -> None:
    async with proxied_connection() as there:
        there.connection.blackhole()
        there.client.write(b"into the void")
        there.server.write(b"into the void")
        for reader in (there.client_reader, there.server_reader):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.02)
        assert there.proxy.connections


async def test_a_black_hole_of_one_way_leaves_the_other() -> None:
    async with proxied_connection() as there:
        there.connection.blackhole(Direction.UP)
        there.client.write(b"into the void")
        there.server.write(b"heard")
        assert await there.client_reader.read(100) == b"heard"
        there.server.close()
        assert await there.client_reader.read() == b""


async def test_the_end_of_a_client_in_a_black_hole_is_not_heard() -> None:
    async with proxied_connection() as there:
        there.connection.blackhole()
        there.client.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(there.server_reader.read(1), 0.02)


@pytest.mark.parametrize("way", Direction)
async def test_a_half_close_ends_one_way_and_leaves_the_other(way: Direction) -> None:
    async with proxied_connection() as there:
        there.connection.half_close(way)
        ends = [
            (there.client, there.server_reader),
            (there.server, there.client_reader),
        ]
        (_, ended), (speaker, listener) = ends if way is Direction.UP else ends[::-1]
        assert await ended.read() == b""
        speaker.write(b"heard")
        assert await listener.read(100) == b"heard"


async def test_a_delay_holds_up_what_comes_until_it_is_taken_back() -> None:
    async with proxied_connection() as there:
        loop = asyncio.get_running_loop()
        there.connection.delay(0.05, Direction.DOWN)
        began = loop.time()
        there.server.write(b"late")
        assert await there.client_reader.read(100) == b"late"
        # A loop's clock counts in milliseconds.
        assert loop.time() - began > 0.045
        there.connection.delay(1000)
        there.connection.delay(0)
        there.server.write(b"at once")
        assert await there.client_reader.read(100) == b"at once"


async def test_a_throttle_lets_no_more_than_so_much_pass() -> None:
    async with proxied_connection() as there:
        loop = asyncio.get_running_loop()
        there.connection.throttle(10_000)
        began = loop.time()
        there.server.write(bytes(1000))
        await there.client_reader.readexactly(1000)
        # The last of its five pieces is not waited for.
        assert loop.time() - began >= 0.07


async def test_while_it_refuses_nobody_connects_and_afterwards_on_the_same_port() -> None:
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


async def test_a_refusal_leaves_the_connections_that_are_there() -> None:
    async with proxied_connection() as there:
        there.proxy.refuse()
        there.server.write(b"heard")
        assert await there.client_reader.read(100) == b"heard"


async def test_a_server_that_moves_is_found_at_its_new_port() -> None:
    async with proxied_connection() as there, upstream() as (port, accepted):
        there.proxy.upstream_port = port
        async with connect_client(there.proxy) as (reader, _):
            _, server = await accepted.get()
            server.write(b"from the other")
            assert await reader.read(100) == b"from the other"


async def test_a_server_that_is_away_is_a_reset() -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        async with upstream() as (port, _):
            pass
        async with Proxy(port) as proxy, connect_client(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await until(lambda: not proxy.connections)


async def test_a_new_connection_can_be_a_bad_one_from_its_first_byte() -> None:
    async with proxied_connection(
        on_connection=lambda connection: connection.cut_after(2)
    ) as there:
        there.server.write(b"welcome")
        assert await there.client_reader.read() == b"we"


async def test_nothing_is_left_of_it_whatever_its_connections_were_at() -> None:
    before = asyncio.all_tasks()
    async with proxied_connection() as there:
        there.connection.blackhole()
        there.connection.throttle(1)
        there.server.write(bytes(100_000))
        async with connect_client(there.proxy):
            await until(lambda: len(there.proxy.connections) == 2)
    assert asyncio.all_tasks() == before


def test_the_same_seed_is_the_same_plan_and_each_fault_has_its_turn() -> None:
    steps = plan(7, len(Fault))
    assert plan(7, len(Fault)) == steps != plan(8, len(Fault))
    assert {step.fault for step in steps} == set(Fault)


@pytest.mark.parametrize("fault", Fault)
async def test_chaos_does_each_fault_and_leaves_a_network_that_is_well(fault: Fault) -> None:
    async with proxied_connection() as there:
        chaos = Chaos(there.proxy, [Step(0.001, fault, 0.01, 0.5, Direction.DOWN, 1)])
        there.server.write(b"12")
        await chaos.run()
        assert chaos.counts == {fault: 1}
        await until(lambda: not there.proxy.connections)
        async with connect_client(there.proxy):
            await until(lambda: len(there.proxy.connections) == 1)
