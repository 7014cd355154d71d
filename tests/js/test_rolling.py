"""Test stock JavaScript clients while servers are restarted, renewed, killed and paused."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from server.cli.private_redis import private_redis
from tests.kit.clients.js_readers import DEFAULT_TRANSPORTS, Report, run_readers
from tests.kit.clients.publisher import TOPIC, run_publisher
from tests.kit.network.http_proxies import run_proxy
from tests.kit.network.ports import free_port
from tests.kit.network.tcp_proxy import Proxy
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.programs import require_program
from tests.kit.server.previous import extract_previous
from tests.kit.server.workers import Workers, workers

# A stock client's default transports, and those that work with several workers.
MIXED_TRANSPORTS = [*[DEFAULT_TRANSPORTS] * 4, *[("websocket",)] * 4, *[("polling",)] * 2]
WEBSOCKETS = [("websocket",)] * 8
DRAINING = {
    "FLOORCAST_SERVER__DRAIN_SECONDS": "1",
    "FLOORCAST_SERVER__TRUSTED_PROXIES": "127.0.0.1",
}
NODE = {
    **DRAINING,
    "FLOORCAST_FEED__NAME": "simulated",
    "FLOORCAST_FEED__RATE": "100",
}
# HAProxy's health checks need this long to detect a restarted node.
CHECK_SECONDS = 1.5
# A request that hangs takes MAX_WAIT_SECONDS.
MAX_REPLY_SECONDS = MAX_WAIT_SECONDS / 2
PAUSED_SECONDS = float(os.environ.get("FLOORCAST_STRESS_SECONDS", "2"))


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_all_clients_reconnect_after_a_rolling_restart(name: str, tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    with contextlib.ExitStack() as started, run_proxy(name, tmp_path, ports) as port:

        def start(node_port: int) -> Workers:
            return started.enter_context(workers(1, "--port", str(node_port), environ=NODE))

        nodes = [await asyncio.to_thread(start, each) for each in ports]
        await asyncio.sleep(CHECK_SECONDS)
        url, token = f"http://127.0.0.1:{port}", Workers.token()
        async with run_readers(url, token, "PRICE:BTCUSDT", MIXED_TRANSPORTS) as readers:
            before = await readers.until(lambda each: each.received > 0)
            for node, node_port in zip(nodes, ports, strict=True):
                node.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(node.process.wait, MAX_WAIT_SECONDS) == 0
                await asyncio.to_thread(start, node_port)
                await readers.until(lambda each: each.connected)
                await asyncio.sleep(CHECK_SECONDS)
            received = {each.number: each.received for each in await readers.reports()}
            after = await readers.until(
                # Upgraded if it may upgrade, and received something new.
                lambda each: (
                    each.received > received[each.number]
                    and (each.transport == "polling")
                    is (MIXED_TRANSPORTS[each.number] == ("polling",))
                )
            )
        assert all(each.gaps == 0 for each in after)
        connects = [sum(each.connects for each in reports) for reports in (before, after)]
        assert connects[1] >= connects[0] + len(MIXED_TRANSPORTS)


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of a private Redis."""
    require_program("redis-server")
    with private_redis() as url:
        yield url


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_rolling_restart_under_load_loses_nothing(
    name: str, redis: str, tmp_path: Path
) -> None:
    ports = (free_port(), free_port())
    environ = {**DRAINING, "FLOORCAST_BROKER__URL": redis}
    with contextlib.ExitStack() as started, run_proxy(name, tmp_path, ports) as port:

        def start(node_port: int) -> Workers:
            return started.enter_context(workers(1, "--port", str(node_port), environ=environ))

        nodes = [await asyncio.to_thread(start, each) for each in ports]
        await asyncio.sleep(CHECK_SECONDS)
        token = Workers.token()
        async with (
            run_readers(f"http://127.0.0.1:{port}", token, TOPIC, MIXED_TRANSPORTS) as readers,
            run_publisher(port, token) as publisher,
        ):
            await readers.until(lambda each: each.received > 5)
            for node, node_port in zip(nodes, ports, strict=True):
                node.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(node.process.wait, MAX_WAIT_SECONDS) == 0
                await publisher.until_acknowledged(25)
                await publisher.until_all_received(readers)
                await asyncio.to_thread(start, node_port)
                await asyncio.sleep(CHECK_SECONDS)
                await publisher.until_acknowledged(25)
            await publisher.until_all_received(readers)
            # Each client recovered on the other node whenever its own was drained.
            after = await readers.reports()
            check_recovered(after)
        assert publisher.slowest_reply_seconds < MAX_REPLY_SECONDS


async def test_rolling_upgrade_under_load_loses_nothing(redis: str, tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    environ = {**DRAINING, "FLOORCAST_BROKER__URL": redis}
    previous = extract_previous(tmp_path / "previous")
    with contextlib.ExitStack() as started, run_proxy("haproxy", tmp_path, ports) as port:

        def start(node_port: int, checkout: Path | None) -> Workers:
            flags = ("--port", str(node_port))
            return started.enter_context(workers(1, *flags, environ=environ, checkout=checkout))

        nodes = [await asyncio.to_thread(start, each, previous) for each in ports]
        await asyncio.sleep(CHECK_SECONDS)
        token = Workers.token()
        async with (
            run_readers(f"http://127.0.0.1:{port}", token, TOPIC, MIXED_TRANSPORTS) as readers,
            run_publisher(port, token) as publisher,
        ):
            await readers.until(lambda each: each.received > 5)
            for node, node_port in zip(nodes, ports, strict=True):
                node.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(node.process.wait, MAX_WAIT_SECONDS) == 0
                await publisher.until_all_received(readers)
                await asyncio.to_thread(start, node_port, None)
                await asyncio.sleep(CHECK_SECONDS)
                # For a while both versions serve, publish and recover each other's clients.
                await publisher.until_acknowledged(25)
                await publisher.until_all_received(readers)
            after = await readers.reports()
            check_recovered(after)
            assert all(each.gaps == each.resets == 0 for each in after)


def check_recovered(reports: list[Report]) -> None:
    """Check that each client recovered whenever its connection had ended with a goodbye.

    A client that polls too late for its drained node has none.
    """
    assert [each.lost for each in reports] == [0] * len(reports)
    for each, transports in zip(reports, MIXED_TRANSPORTS, strict=True):
        if "websocket" in transports:
            assert each.recovered == each.connects - 1, each
    assert sum(each.connects - 1 for each in reports) >= len(MIXED_TRANSPORTS)


def connected_more_than(times: int) -> Callable[[Report], bool]:
    return lambda each: each.connects > times


async def kill_worker(workers: Workers) -> None:
    ready = workers.count_logged("a worker is ready")
    os.kill(workers.pids().pop(), signal.SIGKILL)
    await asyncio.to_thread(workers.until_logged, "a worker is ready", ready + 1)


async def pause_worker(workers: Workers) -> None:
    pid = workers.pids().pop()
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(PAUSED_SECONDS)
    os.kill(pid, signal.SIGCONT)


async def renew_workers(workers: Workers) -> None:
    renewed = workers.count_logged("all workers are renewed")
    workers.process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(workers.until_logged, "all workers are renewed", renewed + 1)


@pytest.mark.parametrize("disturb", [kill_worker, pause_worker, renew_workers])
async def test_disturbed_worker_under_load_loses_nothing(
    disturb: Callable[[Workers], Awaitable[None]], redis: str
) -> None:
    environ = {**DRAINING, "FLOORCAST_BROKER__URL": redis}
    with workers(2, environ=environ) as server:
        token = server.token()
        async with (
            run_readers(server.url, token, TOPIC, WEBSOCKETS) as readers,
            run_publisher(server.port, token) as publisher,
        ):
            await readers.until(lambda each: each.received > 5)
            for _ in range(2):
                await disturb(server)
                await publisher.until_acknowledged(10)
                await publisher.until_all_received(readers)


async def test_cut_clients_recover_on_any_worker(
    redis: str,
) -> None:
    environ = {**DRAINING, "FLOORCAST_BROKER__URL": redis}
    with workers(2, environ=environ) as server:
        token = server.token()
        async with (
            Proxy(server.port) as network,
            run_readers(network.url, token, TOPIC, WEBSOCKETS) as readers,
            run_publisher(server.port, token) as publisher,
        ):
            await readers.until(lambda each: each.received > 5)
            for count in range(1, 4):
                network.cut_all()
                await readers.until(connected_more_than(count))
                await publisher.until_all_received(readers)
            # The kernel chooses the worker: all clients keep theirs in one of 16 million runs.
            assert [each.recovered for each in await readers.reports()] == [3] * len(WEBSOCKETS)
