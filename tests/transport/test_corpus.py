"""Tests every hostile input in every connection state over a real socket."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.kit.clients.wire import RawClient
from tests.kit.network.hostile import (
    AUTHENTICATING,
    BEFORE_CONNECT,
    HOSTILE_INPUTS,
    JOINED,
    MAX_MESSAGE_BYTES,
    STATES,
)
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running

# The RS256 header names a key, so that verification waits for the issuer.
_TOKEN_HEADER = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ"


@asynccontextmanager
async def silent_issuer() -> AsyncIterator[str]:
    """An issuer that never answers a request for its keys."""

    async def never(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    app = web.Application()
    app.router.add_get("/keys", never)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    finally:
        await runner.cleanup()


async def in_state(node: RunningServer, state: str) -> RawClient:
    """A client in this connection state."""
    if state == JOINED:
        return await RawClient.connect(node.port, node.token("eve"))
    client = await RawClient.open(node.port)
    await client.text()
    if state == AUTHENTICATING:
        client.send(f"40/market,{json.dumps({'token': f'{_TOKEN_HEADER}.e30.AAAA'})}")
        await until(lambda: any(each.busy for each in node.server.sockets.connections()))
    return client


def own_tasks() -> int:
    """The number of tasks of the server, without those of the HTTP client that fetches keys."""
    return sum(task.get_name().startswith("floorcast-") for task in asyncio.all_tasks())


def open_files() -> int:
    """The number of file descriptors of this process, including sockets."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.mark.behaviour("D49")
@pytest.mark.parametrize("state", STATES)
async def test_hostile_input_closes_its_connection_only(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="server")
    async with silent_issuer() as url:
        settings: dict[str, object] = {
            "limits.events_per_second": 0,
            # An event may be twice as large as its message.
            "limits.message_bytes": MAX_MESSAGE_BYTES // 2,
        }
        if state == AUTHENTICATING:
            settings |= {"auth.jwks_url": url, "auth.algorithm": "RS256"}
        async with running(settings) as node:
            witness = None
            if state != AUTHENTICATING:
                witness = await RawClient.connect(node.port, node.token("ann"))
                await witness.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
            # The first waiting client creates the task that fetches the keys.
            (await in_state(node, state)).cut()
            await until(lambda: node.residue()["sockets"] == (witness is not None))
            before = node.residue()
            tasks = own_tasks()
            files = open_files()
            for hostile in HOSTILE_INPUTS:
                if state not in hostile.states:
                    continue
                caplog.clear()
                client = await in_state(node, state)
                client.send_bytes(hostile.wire)
                try:
                    await client.until_closed()
                    await until(lambda: node.residue() == before and own_tasks() <= tasks)
                except TimeoutError:
                    pytest.fail(f"{hostile.name}: {before} became {node.residue()}")
                lines = [each for each in caplog.records if each.name.startswith("server")]
                assert len(lines) <= 1, (hostile.name, [each.message for each in lines])
                assert not any(each.exc_info for each in caplog.records), hostile.name
            if witness is not None:
                # Not while authenticating: the connection to the issuer also counts.
                await until(lambda: open_files() <= files)
                await node.server.market.publishing.publish("PRICE:BTCUSDT", dict(PRICE))
                event, message = await witness.event()
                assert (event, message["seq"]) == ("price", 1)
                witness.cut()
            await node.until_empty()


async def test_corpus_names_are_unique() -> None:
    names = [hostile.name for hostile in HOSTILE_INPUTS]
    assert len(names) == len(set(names)) >= 60
    assert BEFORE_CONNECT in HOSTILE_INPUTS[0].states
