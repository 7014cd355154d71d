"""Test the server as a process: start, output, signals and startup errors."""

import asyncio
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.demo import demo, environ_without_settings
from tests.kit.server.in_process import running


def get(url: str) -> tuple[int, str]:
    """The status and body of a response."""
    try:
        with urllib.request.urlopen(url, timeout=MAX_WAIT_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_demo_prints_its_url_and_tokens() -> None:
    with demo() as started:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", started.url)
        assert set(started.tokens) == {"trader", "publisher", "moderator", "ops"}
        assert get(f"{started.url}/health/live") == (200, '{"status": "ok"}')
        assert get(f"{started.url}/health/ready") == (200, '{"status": "ready"}')
        assert get(started.url)[0] == 200
        status, session = get(f"{started.url}/console/session")
        assert status == 200
        assert started.tokens["ops"] in session
        assert get(f"{started.url}/nothing")[0] == 404


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_termination_signal_disconnects_clients_and_exits(how: signal.Signals) -> None:
    with demo(environ={"FLOORCAST_SERVER__DRAIN_SECONDS": "0.2"}) as started:
        port = int(started.url.rpartition(":")[2])
        client = await RawClient.connect(port, started.tokens["trader"])
        started.process.send_signal(how)
        if how is signal.SIGTERM:
            event, hint = await client.event()
            assert event == "reconnect_hint"
            assert 0 <= hint["after_ms"] <= 100
        event, goodbye = await client.event()
        assert (event, goodbye["code"], goodbye["reconnect"]) == (
            "goodbye",
            "server.draining",
            True,
        )
        assert await client.until_closed() == b"\x88\x02\x03\xe8"
        assert started.process.wait(MAX_WAIT_SECONDS) == 0


async def test_draining_server_is_not_ready_and_refuses_connects() -> None:
    async with running() as node:
        await node.server.drain(0)
        asking = [
            ("/health/ready", '{"status": "not ready"}'),
            # After a 503 a stock client retries, and a proxy may try another node, also for an
            # unknown sid.
            ("/socket.io/?EIO=4&transport=polling", "server.draining"),
            ("/socket.io/?EIO=4&transport=polling&sid=of-another-node", "server.draining"),
        ]
        for path, answer in asking:
            status, body = await asyncio.to_thread(get, node.url + path)
            assert status == 503
            assert answer in body
        with pytest.raises(ConnectionError, match=r"503(.|\n)*Connection: close(.|\n)*draining"):
            await RawClient.open(node.port)
        assert not any(node.residue().values())


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        ({}, [], "set exactly one of auth.secret"),
        ({"FLOORCAST_AUTH__SECRET": "short"}, [], "auth.secret"),
        ({"FLOORCAST_AUTH__SECRT": "x" * 40}, [], "did you mean FLOORCAST_AUTH__SECRET?"),
        ({"FLOORCAST_LIMITS__CONNECTIONS": "many"}, [], "limits.connections (environment)"),
        ({}, ["--workers", "0"], "server.workers (flags)"),
        ({}, ["--config", "/nowhere/floorcast.toml"], "/nowhere/floorcast.toml"),
        ({"FLOORCAST_AUTH__SECRET": "x" * 40}, ["--host", "203.0.113.1"], "cannot listen on"),
    ],
)
def test_startup_error_is_one_line(environ: dict[str, str], flags: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "server.cli", "serve", "--port", "0", *flags],
        env={**environ_without_settings(), **environ},
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "x" * 40 not in done.stderr


async def test_process_ends_in_time_although_a_part_does_not_stop() -> None:
    program = """
import asyncio, time
from server import serving
from server.server import Server
from server.settings import Settings

async def never_stop(self):
    time.sleep(600)

Server.stop_feed = never_stop
serving._MIN_STOP_SECONDS = 0.3
settings = Settings(
    auth={"secret": "0123456789abcdef0123456789abcdef"}, server={"port": 0, "drain_seconds": 0.1}
)
asyncio.run(serving.serve(settings, announce=lambda url: print(url, flush=True)))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ_without_settings(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://")
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=MAX_WAIT_SECONDS)
        assert process.returncode == 1
        assert "did not stop in time" in logged
