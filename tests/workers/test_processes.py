"""Several workers as processes: who dies is replaced, who is renewed is not missed, all are ended.

Each has a market of its own here. What clients of several workers share is told elsewhere.
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

# So many connections that all of them at one of two workers is not to be feared: 1 in 2 ** 39.
MANY = 40
QUICK = {"FLOORCAST_SERVER__DRAIN_SECONDS": "0.2"}


async def join_clients(floor: Workers, count: int = MANY) -> list[RawClient]:
    """So many clients who have joined."""
    joining = (RawClient.connect(floor.port, floor.token()) for _ in range(count))
    return list(await asyncio.gather(*joining))


def cut(clients: Iterable[RawClient]) -> None:
    for each in clients:
        each.cut()


async def disconnected(clients: Iterable[RawClient]) -> list[RawClient]:
    """Those whose connections have ended without a word."""
    await asyncio.sleep(0.05)
    return [each for each in clients if each.reader.at_eof()]


async def receives_feed(clients: Iterable[RawClient]) -> list[bool]:
    """At whose worker the feed has said something."""
    asking = (each.call("subscribe", {"topics": ["PRICE:BTCUSDT"]}) for each in clients)
    answers = await asyncio.gather(*asking)
    return [answer["topics"]["PRICE:BTCUSDT"]["seq"] > 0 for answer in answers]


def alive(pids: Iterable[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


async def until_gone(pids: Iterable[int]) -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while alive(pids):
            await asyncio.sleep(0.01)


async def test_all_workers_serve_at_one_address_that_is_said_once() -> None:
    with workers(2) as floor:
        assert floor.printed == [f"listening on {floor.url}\n"]
        assert len(floor.pids()) == 2
        assert get(f"{floor.url}/health/ready") == (200, '{"status": "ready"}')
        clients = await join_clients(floor)
        victim = floor.pids().pop()
        os.kill(victim, signal.SIGKILL)
        floor.until_logged("a worker has died")
        lost = await disconnected(clients)
        assert 0 < len(lost) < MANY
        cut(clients)


async def test_who_waits_at_a_worker_that_is_killed_is_served_by_the_next_one() -> None:
    with workers(2) as floor:
        first, second = floor.pids()
        for pid in (first, second):
            os.kill(pid, signal.SIGSTOP)
        # The kernel connects them, and nobody takes them in.
        joining = asyncio.ensure_future(join_clients(floor))
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        os.kill(second, signal.SIGCONT)
        clients = await asyncio.wait_for(joining, MAX_WAIT_SECONDS)
        assert len(clients) == MANY
        assert second in floor.pids()
        cut(clients)


async def test_a_worker_that_was_stopped_for_a_while_has_lost_nobody() -> None:
    with workers(2) as floor:
        clients = await join_clients(floor)
        for pid in floor.pids():
            os.kill(pid, signal.SIGSTOP)
        asking = [client.call("subscribe", {"topics": ["PRICE:A"]}) for client in clients]
        answering = asyncio.gather(*asking)
        await asyncio.sleep(0.5)
        assert not answering.done()
        for pid in floor.pids():
            os.kill(pid, signal.SIGCONT)
        assert all(answer["ok"] for answer in await answering)
        cut(clients)


async def test_one_worker_runs_the_feed_and_when_it_is_killed_its_successor_does() -> None:
    with workers(2, "--feed", "simulated") as floor:
        for _ in range(2):
            clients = await join_clients(floor)
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while not any(await receives_feed(clients)):
                    await asyncio.sleep(0.1)
            assert 0 < sum(await receives_feed(clients)) < MANY
            [line] = [line for line in floor.logged if "a worker is ready worker=0" in line][-1:]
            died = sum("has died" in line for line in floor.logged)
            os.kill(int(line.rpartition("pid=")[2]), signal.SIGKILL)
            floor.until_logged("a worker is ready worker=0", died + 2)
            cut(clients)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_sends_everybody_away_from_every_worker(how: signal.Signals) -> None:
    with workers(2, environ=QUICK) as floor:
        clients = await join_clients(floor)
        pids = floor.pids()
        floor.process.send_signal(how)
        for client in clients:
            event, body = await client.event()
            if how is signal.SIGTERM:
                assert event == "reconnect_hint"
                event, body = await client.event()
            assert (event, body["code"], body["reconnect"]) == ("goodbye", "server.draining", True)
            await client.until_closed()
        assert await asyncio.to_thread(floor.process.wait, MAX_WAIT_SECONDS) == 0
        assert not alive(pids)


async def test_a_second_signal_does_not_wait() -> None:
    with workers(2) as floor:
        clients = await join_clients(floor)
        floor.process.send_signal(signal.SIGTERM)
        # Now the drain, of 30 seconds, has begun.
        assert (await clients[0].event())[0] == "reconnect_hint"
        floor.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(floor.process.wait, MAX_WAIT_SECONDS) == 1
        cut(clients)


async def test_renewing_turns_nobody_away_and_sends_the_clients_of_the_old_ones_off() -> None:
    with workers(2, environ=QUICK) as floor:
        old = floor.pids()
        clients = await join_clients(floor)
        floor.process.send_signal(signal.SIGHUP)
        arrived = 0
        while "all workers are renewed" not in "".join(floor.logged):
            newcomer = await RawClient.connect(floor.port, floor.token())
            arrived += 1
            newcomer.cut()
        assert arrived > 20
        for client in clients:
            assert (await client.event())[0] == "reconnect_hint"
            event, goodbye = await client.event()
            assert (event, goodbye["reconnect"]) == ("goodbye", True)
            client.cut()
        assert len(floor.pids()) == 2
        assert not old & floor.pids()
        assert len(floor.printed) == 1


async def test_wrong_settings_renew_nothing_and_are_said(tmp_path: Path) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text("[ping]\ninterval_seconds = 20\n")
    with workers(2, "--config", str(file)) as floor:
        old = floor.pids()
        file.write_text('[ping]\ninterval_seconds = "often"\n')
        floor.process.send_signal(signal.SIGHUP)
        floor.until_logged("ping.interval_seconds")
        assert floor.pids() == old
        file.write_text("[ping]\ninterval_seconds = 10\n")
        floor.process.send_signal(signal.SIGHUP)
        floor.until_logged("all workers are renewed")
        client = await RawClient.open(floor.port)
        assert '"pingInterval":10000' in await client.text()
        client.cut()


async def test_workers_whose_supervisor_was_killed_let_everybody_go_and_end() -> None:
    with workers(2, environ=QUICK) as floor:
        pids = floor.pids()
        clients = await join_clients(floor)
        floor.process.kill()
        for client in clients:
            assert (await client.event())[0] == "reconnect_hint"
        await until_gone(pids)
        cut(clients)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", floor.port)


async def test_a_polling_client_is_told_what_to_do_instead() -> None:
    with workers(2) as floor:
        status, body = get(f"{floor.url}/socket.io/?EIO=4&transport=polling")
        assert status == 400
        assert 'no polling here: connect with transports: [\\"websocket\\"]' in body


async def test_clients_of_all_workers_of_the_demo_share_one_market() -> None:
    require_program("redis-server")
    with demo("--workers", "2") as floor:
        port = int(floor.url.rpartition(":")[2])
        joining = (RawClient.connect(port, floor.tokens["trader"]) for _ in range(MANY))
        clients = await asyncio.gather(*joining)
        for client in clients:
            answer = await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
            assert answer["topics"]["PRICE:BTCUSDT"]["status"] == "CONNECTED"
        # One feed, numbered once, and heard by everybody.
        messages = [await client.event() for client in clients]
        assert {event for event, _ in messages} == {"price"}
        assert len({message["epoch"] for _, message in messages}) == 1
        cut(clients)


def failed_start(*flags: str) -> "subprocess.CompletedProcess[str]":
    """What comes of a start that fails."""
    return subprocess.run(
        [sys.executable, "-m", "server.cli", "serve", *flags],
        env={**environ_without_settings(), "FLOORCAST_AUTH__SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_SECONDS,
        check=False,
    )


def test_workers_that_would_share_nothing_are_not_started() -> None:
    done = failed_start("--port", "0", "--workers", "2")
    assert done.returncode == 2
    assert done.stderr == (
        "floorcast: server.workers: 2 processes need a broker that they share: "
        "set broker.url to a Redis\n"
    )


def test_nobody_else_can_listen_where_workers_do() -> None:
    with workers(2) as floor:
        done = failed_start("--port", str(floor.port))
        assert done.returncode == 2
        assert "cannot listen on" in done.stderr
