"""Tests the metrics of real workers, that hung ones are replaced, and what systemd is sent."""

import asyncio
import contextlib
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.clients.wire import RawClient
from tests.kit.network.ports import free_port
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.workers import workers

MANY = 40


class Admin:
    """The admin listener of a supervisor."""

    def __init__(self) -> None:
        self._port = free_port()
        self.environ = {"FLOORCAST_ADMIN__PORT": str(self._port)}

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}") as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def by_worker(self, name: str) -> dict[str, float]:
        """The values of one metric by worker, summed over its other labels."""
        _, page = self.get("/metrics")
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name:
                    worker = sample.labels["worker"]
                    values[worker] = values.get(worker, 0) + sample.value
        return values

    async def until(self, name: str, expected: dict[str, float]) -> None:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while await asyncio.to_thread(self.by_worker, name) != expected:
                await asyncio.sleep(0.05)


async def test_scrape_gathers_all_workers_and_outlives_them() -> None:
    admin = Admin()
    environ = {**admin.environ, "FLOORCAST_SERVER__DRAIN_SECONDS": "1"}
    with workers(2, environ=environ) as cluster:
        clients = [await RawClient.connect(cluster.port, cluster.token()) for _ in range(MANY)]
        joined = await asyncio.to_thread(admin.by_worker, "floorcast_clients_joined")
        assert joined.keys() == {"0", "1"}
        assert all(joined.values())
        assert sum(joined.values()) == MANY
        up = {"0": 1.0, "1": 1.0, "supervisor": 1.0}
        await admin.until("floorcast_workers_up", up)
        assert (await asyncio.to_thread(admin.get, "/health/ready"))[0] == 200
        os.kill(cluster.pids().pop(), signal.SIGKILL)
        await admin.until("floorcast_workers_died_total", {"supervisor": 1.0})
        await admin.until("floorcast_workers_up", up)
        joined = await asyncio.to_thread(admin.by_worker, "floorcast_clients_joined")
        remaining = sum(joined.values())
        assert 0 < remaining < MANY
        cluster.process.send_signal(signal.SIGHUP)
        draining = 0.0
        while not cluster.count_logged("all workers are renewed"):
            counted = await asyncio.to_thread(admin.by_worker, "floorcast_clients_joins_total")
            assert counted.keys() <= {"0", "1"}
            assert sum(counted.values()) == MANY
            joined = await asyncio.to_thread(admin.by_worker, "floorcast_clients_joined")
            draining += sum(joined.get(f"{worker}-draining", 0) for worker in counted)
        assert draining, "draining workers stay in the scrape"
        left = await asyncio.to_thread(admin.by_worker, "floorcast_clients_left_total")
        assert sum(left.values()) == remaining
        for client in clients:
            client.cut()


async def test_stopped_worker_is_reported_and_replaced() -> None:
    admin = Admin()
    environ = {**admin.environ, "FLOORCAST_SERVER__HANG_SECONDS": "4"}
    with workers(2, environ=environ) as cluster:
        hung = cluster.pids().pop()
        os.kill(hung, signal.SIGSTOP)
        up = await asyncio.to_thread(admin.by_worker, "floorcast_workers_up")
        assert sorted(up.values()) == [0.0, 1.0, 1.0]
        status, body = await asyncio.to_thread(admin.get, "/health/ready")
        assert (status, "does not answer" in body) == (503, True)
        await asyncio.to_thread(cluster.until_logged, "killing a worker that hangs")
        await asyncio.to_thread(cluster.until_logged, "a worker is ready", 3)
        assert hung not in cluster.pids()
        await admin.until("floorcast_workers_hung_total", {"supervisor": 1.0})
        assert (await asyncio.to_thread(admin.get, "/health/ready"))[0] == 200


@contextlib.contextmanager
def systemd(folder: Path) -> Iterator[socket.socket]:
    """The socket on which systemd gets the states of a service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / "notify"))
        sock.settimeout(MAX_WAIT_SECONDS)
        yield sock


def next_state(sock: socket.socket, *, skipping: str = "") -> str:
    while (state := sock.recv(100).decode()) == skipping:
        pass
    return state


def states_until_silence(sock: socket.socket) -> list[str]:
    sock.settimeout(0.5)
    states: list[str] = []
    with contextlib.suppress(TimeoutError):
        while len(states) < 100:
            states.append(next_state(sock))
    return states


@pytest.mark.parametrize("count", [1, 2])
def test_systemd_learns_that_the_service_is_ready_alive_and_stopping(
    tmp_path: Path, count: int
) -> None:
    with systemd(tmp_path) as sock:
        environ = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "200000",
            "FLOORCAST_SERVER__DRAIN_SECONDS": "0.2",
        }
        with workers(count, environ=environ) as service:
            assert next_state(sock, skipping="WATCHDOG=1") == "READY=1"
            began = time.monotonic()
            assert {next_state(sock) for _ in range(10)} == {"WATCHDOG=1"}
            assert time.monotonic() - began > 0.8, "twice in each watchdog time"
            service.process.send_signal(signal.SIGTERM)
            assert next_state(sock, skipping="WATCHDOG=1") == "STOPPING=1"
            assert service.process.wait(MAX_WAIT_SECONDS) == 0


def test_blocked_event_loop_stops_the_watchdog(tmp_path: Path) -> None:
    with systemd(tmp_path) as sock:
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with workers(1, environ=environ) as service:
            assert next_state(sock) == "READY=1"
            os.kill(service.process.pid, signal.SIGSTOP)
            assert len(states_until_silence(sock)) < 5
            os.kill(service.process.pid, signal.SIGCONT)
