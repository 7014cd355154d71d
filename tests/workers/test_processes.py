"""Tests replacing, renewing and stopping of worker processes.

Each worker has its own market here: they share no broker.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.journeys.test_serving import get
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.programs import require_program
from tests.kit.server.demo import demo, environ_without_settings
from tests.kit.server.in_process import SECRET
from tests.kit.server.workers import Workers, workers

# All of so many connections reach the same one of two workers once in 2 ** 39.
MANY = 40
QUICK = {"FLOORCAST_SERVER__DRAIN_SECONDS": "0.2"}


async def join_clients(cluster: Workers, count: int = MANY) -> list[RawClient]:
    """Connect and join many clients."""
    joining = (RawClient.connect(cluster.port, cluster.token()) for _ in range(count))
    return list(await asyncio.gather(*joining))


def cut(clients: Iterable[RawClient]) -> None:
    for each in clients:
        each.cut()


async def kill_worker(cluster: Workers, clients: Iterable[RawClient]) -> list[RawClient]:
    """Kill one of the workers; return the clients that it had, whose connections have ended."""
    victim = min(cluster.pids())
    ports = cluster.client_ports(victim)
    lost = [each for each in clients if each.port in ports]
    os.kill(victim, signal.SIGKILL)
    for each in lost:
        assert b"goodbye" not in await each.until_closed()
    return lost


async def receives_feed(clients: Iterable[RawClient]) -> list[bool]:
    """Whether each client's worker has received market data."""
    calls = (each.call("subscribe", {"topics": ["PRICE:BTCUSDT"]}) for each in clients)
    replies = await asyncio.gather(*calls)
    return [reply["topics"]["PRICE:BTCUSDT"]["seq"] > 0 for reply in replies]


def alive(pids: Iterable[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


async def until_gone(pids: Iterable[int]) -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while alive(pids):
            await asyncio.sleep(0.01)


async def test_all_workers_serve_at_one_address() -> None:
    with workers(2) as cluster:
        assert cluster.printed == [f"listening on {cluster.url}\n"]
        assert len(cluster.pids()) == 2
        assert get(f"{cluster.url}/health/ready") == (200, '{"status": "ready"}')
        clients = await join_clients(cluster)
        lost = await kill_worker(cluster, clients)
        assert 0 < len(lost) < MANY
        for each in clients:
            if each not in lost:
                assert (await each.call("subscriptions", {}))["ok"]
        await asyncio.to_thread(cluster.until_logged, "a worker has died")
        cut(clients)


async def test_successor_serves_clients_queued_at_a_killed_worker() -> None:
    with workers(2) as cluster:
        first, second = cluster.pids()
        for pid in (first, second):
            os.kill(pid, signal.SIGSTOP)
        # The kernel connects the clients, but no process accepts them.
        joining = asyncio.ensure_future(join_clients(cluster))
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        os.kill(second, signal.SIGCONT)
        clients = await asyncio.wait_for(joining, MAX_WAIT_SECONDS)
        assert len(clients) == MANY
        assert second in cluster.pids()
        cut(clients)


async def test_stopped_and_continued_worker_keeps_its_clients() -> None:
    with workers(2) as cluster:
        clients = await join_clients(cluster)
        for pid in cluster.pids():
            os.kill(pid, signal.SIGSTOP)
        calls = [client.call("subscribe", {"topics": ["PRICE:A"]}) for client in clients]
        reading_replies = asyncio.gather(*calls)
        await asyncio.sleep(0.5)
        assert not reading_replies.done()
        for pid in cluster.pids():
            os.kill(pid, signal.SIGCONT)
        assert all(reply["ok"] for reply in await reading_replies)
        cut(clients)


async def test_successor_of_a_killed_worker_runs_the_feed() -> None:
    with workers(2, "--feed", "simulated") as cluster:
        for _ in range(2):
            clients = await join_clients(cluster)
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while not any(await receives_feed(clients)):
                    await asyncio.sleep(0.1)
            assert 0 < sum(await receives_feed(clients)) < MANY
            [line] = [line for line in cluster.logged if "a worker is ready worker=0" in line][-1:]
            died = sum("has died" in line for line in cluster.logged)
            os.kill(int(line.rpartition("pid=")[2]), signal.SIGKILL)
            cluster.until_logged("a worker is ready worker=0", died + 2)
            cut(clients)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_signal_disconnects_the_clients_of_every_worker(signum: signal.Signals) -> None:
    with workers(2, environ=QUICK) as cluster:
        clients = await join_clients(cluster)
        pids = cluster.pids()
        cluster.process.send_signal(signum)
        for client in clients:
            event, body = await client.event()
            if signum is signal.SIGTERM:
                assert event == "reconnect_hint"
                event, body = await client.event()
            assert (event, body["code"], body["reconnect"]) == ("goodbye", "server.draining", True)
            await client.until_closed()
        assert await asyncio.to_thread(cluster.process.wait, MAX_WAIT_SECONDS) == 0
        assert not alive(pids)


async def test_second_signal_skips_the_drain() -> None:
    with workers(2) as cluster:
        clients = await join_clients(cluster)
        cluster.process.send_signal(signal.SIGTERM)
        # The drain of 30 seconds has begun.
        assert (await clients[0].event())[0] == "reconnect_hint"
        cluster.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(cluster.process.wait, MAX_WAIT_SECONDS) == 1
        cut(clients)


async def test_renewal_refuses_no_client_and_drains_the_old_workers() -> None:
    with workers(2, environ=QUICK) as cluster:
        old = cluster.pids()
        clients = await join_clients(cluster)
        cluster.process.send_signal(signal.SIGHUP)
        joined_count = 0
        # At least so many, however fast the machine renews the workers.
        while joined_count <= 20 or "all workers are renewed" not in "".join(cluster.logged):
            newcomer = await RawClient.connect(cluster.port, cluster.token())
            joined_count += 1
            newcomer.cut()
        for client in clients:
            assert (await client.event())[0] == "reconnect_hint"
            event, goodbye = await client.event()
            assert (event, goodbye["reconnect"]) == ("goodbye", True)
            client.cut()
        assert len(cluster.pids()) == 2
        assert not old & cluster.pids()
        assert len(cluster.printed) == 1


async def test_invalid_settings_are_logged_and_renew_nothing(tmp_path: Path) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text("[ping]\ninterval_seconds = 20\n")
    with workers(2, "--config", str(file)) as cluster:
        old = cluster.pids()
        file.write_text('[ping]\ninterval_seconds = "often"\n')
        cluster.process.send_signal(signal.SIGHUP)
        cluster.until_logged("ping.interval_seconds")
        assert cluster.pids() == old
        file.write_text("[ping]\ninterval_seconds = 10\n")
        cluster.process.send_signal(signal.SIGHUP)
        cluster.until_logged("all workers are renewed")
        client = await RawClient.open(cluster.port)
        assert '"pingInterval":10000' in await client.text()
        client.cut()


async def test_workers_drain_if_their_supervisor_is_killed() -> None:
    with workers(2, environ=QUICK) as cluster:
        pids = cluster.pids()
        clients = await join_clients(cluster)
        cluster.process.kill()
        for client in clients:
            assert (await client.event())[0] == "reconnect_hint"
        await until_gone(pids)
        cut(clients)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", cluster.port)


async def test_polling_error_recommends_websocket() -> None:
    with workers(2) as cluster:
        status, body = get(f"{cluster.url}/socket.io/?EIO=4&transport=polling")
        assert status == 400
        assert 'no polling here: connect with transports: [\\"websocket\\"]' in body


async def test_demo_workers_share_one_market() -> None:
    require_program("redis-server")
    with demo("--workers", "2") as cluster:
        port = int(cluster.url.rpartition(":")[2])
        joining = (RawClient.connect(port, cluster.tokens["trader"]) for _ in range(MANY))
        clients = await asyncio.gather(*joining)
        for client in clients:
            reply = await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
            assert reply["topics"]["PRICE:BTCUSDT"]["status"] == "CONNECTED"
        # One feed for all workers: one epoch.
        messages = [await client.event() for client in clients]
        assert {event for event, _ in messages} == {"price"}
        assert len({message["epoch"] for _, message in messages}) == 1
        cut(clients)


def failed_start(*flags: str) -> "subprocess.CompletedProcess[str]":
    """Run `serve` and expect it to fail."""
    return subprocess.run(
        [sys.executable, "-m", "server.cli", "serve", *flags],
        env={**environ_without_settings(), "FLOORCAST_AUTH__SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_SECONDS,
        check=False,
    )


def test_workers_ignore_packages_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    with workers(2, folder=tmp_path) as cluster:
        assert cluster.url, cluster.logged


def test_workers_need_a_shared_broker() -> None:
    done = failed_start("--port", "0", "--workers", "2")
    assert done.returncode == 2
    assert done.stderr == (
        "floorcast: server.workers: 2 workers need a Redis that they share: set broker.url to one\n"
    )


def test_second_server_cannot_bind_the_port_of_the_workers() -> None:
    with workers(2) as cluster:
        done = failed_start("--port", str(cluster.port))
        assert done.returncode == 2
        assert "cannot listen on" in done.stderr
