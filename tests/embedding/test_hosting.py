"""A server inside an aiohttp application of one's own, under a prefix."""

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from client_sdk.contract import Scope
from floorcast import Client
from floorcast.server import SERVER, create_app, host, load_settings
from server.access import mint
from server.server import SystemClock
from server.transport.websocket import WebSocketCarrier
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import SECRET

ROOT = Path(__file__).parent.parent.parent
FLAGS = {"auth.secret": SECRET, "server.port": 0, "server.drain_seconds": 0.1}
# An application module, for any runner.
MODULE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from aiohttp import web
from floorcast.server import create_app, host, load_settings

async def app():
    realtime = create_app(load_settings(flags={FLAGS!r}))
    main = web.Application()
    main.add_subapp("/realtime", realtime)
    host(main, realtime)
    return main
"""


def token() -> str:
    return mint(
        SECRET,
        subject="ann",
        scopes=[Scope.MARKET_READ],
        clock=SystemClock(),
        ttl_seconds=3600,
    )


@contextlib.asynccontextmanager
async def hosted(prefix: str) -> AsyncIterator[tuple[str, web.Application]]:
    """Run an application with a server under a prefix; its base URL, and the server's app."""
    realtime = create_app(load_settings(flags=FLAGS))
    app = web.Application()
    app.add_subapp(prefix, realtime)
    options = host(app, realtime)
    address = options.pop("host"), options.pop("port")
    backlog = options.pop("backlog")
    runner = web.AppRunner(app, **options)
    await runner.setup()
    await web.TCPSite(runner, *address, backlog=backlog).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}", realtime
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def joined(url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A client of `/market`, by WebSocket."""
    path = f"{url}/socket.io/?EIO=4&transport=websocket"
    async with aiohttp.ClientSession() as session, session.ws_connect(path) as socket:
        await socket.receive_str()
        await socket.send_str("40/market," + json.dumps({"token": token()}))
        assert (await socket.receive_str()).startswith("40/market,")
        assert "welcome" in await socket.receive_str()
        yield socket


@pytest.mark.parametrize("prefix", ["/realtime", "/deep/down"])
async def test_clients_connect_under_the_prefix(prefix: str) -> None:
    async with hosted(prefix) as (url, _), joined(url), aiohttp.ClientSession() as session:
        async with session.get(f"{url}/health/ready") as response:
            assert response.status == 200
        poll = f"{url}/socket.io/?EIO=4&transport=polling"
        async with session.get(poll) as response:
            assert (await response.text()).startswith("0{")


async def test_hosted_server_drains_its_clients_on_shutdown() -> None:
    async with contextlib.AsyncExitStack() as stack:
        url, _ = await stack.enter_async_context(hosted("/realtime"))
        async with joined(url) as client:
            closing = asyncio.create_task(stack.aclose())
            texts = [each.data async for each in client]
            await closing
    assert any("reconnect_hint" in each for each in texts)
    assert any("server.draining" in each for each in texts)


async def test_host_tunes_the_collector_while_it_runs() -> None:
    # Another test of this process may have left the tuned values.
    untuned, found = (700, 10, 10), gc.get_threshold()
    gc.set_threshold(*untuned)
    try:
        async with hosted("/realtime"):
            assert gc.get_threshold() != untuned
        assert gc.get_threshold() == untuned
    finally:
        gc.set_threshold(*found)


async def test_kernel_holds_few_unsent_bytes_whoever_listens() -> None:
    async with hosted("/realtime") as (url, realtime), joined(url):
        [connection] = realtime[SERVER].sockets.connections()
        carrier = connection.carrier
        assert isinstance(carrier, WebSocketCarrier)
        assert carrier._transport is not None
        sock = carrier._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 32 * 1024


async def test_python_client_connects_under_the_prefix() -> None:
    async with hosted("/realtime") as (url, realtime), Client(url, token=token()) as client:
        publishing = realtime[SERVER].market.publishing
        prices = client.market.prices("A")
        price: dict[str, Any] = {"bid": "1", "ask": "2", "last": "1", "volume": "0"}
        await publishing.publish("PRICE:A", price)
        async for message in prices:
            assert message.seq == 1
            break


def test_gunicorn_runs_and_drains_it(tmp_path: Path) -> None:
    (tmp_path / "hosted.py").write_text(MODULE)
    arguments = ["-k", "aiohttp.GunicornWebWorker", "-b", "127.0.0.1:0", "hosted:app"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *arguments],
        cwd=tmp_path,
        env=os.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        url = next(
            line.split("Listening at: ")[1].split()[0]
            for line in process.stderr
            if "Listening at" in line
        )

        async def connect_and_stop() -> list[str]:
            async with joined(f"{url}/realtime") as client:
                process.send_signal(signal.SIGTERM)
                return [each.data async for each in client]

        assert any("server.draining" in each for each in asyncio.run(connect_and_stop()))
        # Read to the end: a log line to a closed pipe would make Python exit with 120.
        process.communicate(timeout=MAX_WAIT_SECONDS)
        assert process.returncode == 0
