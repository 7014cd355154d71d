"""`publish`, `inspect` and `top` ask the HTTP API of a real server."""

import argparse
import asyncio
import io
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rich.console import Console

from client_sdk import FloorcastError, ProtocolError, RequestRefused, ServerUnavailable
from client_sdk.contract import Scope
from client_sdk.tools import top
from client_sdk.tools.commands import run as run_command
from client_sdk.tools.options import UsageError
from tests.kit.clients.sdk import client_of
from tests.kit.network.ports import free_port
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running
from tests.sdk.tools.commands import environ_of, run

ALL = (*Scope,)


def admin_of(node: RunningServer) -> dict[str, str]:
    return environ_of(node, node.token("root", scopes=ALL))


async def test_publish_prints_the_position(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as node:
        environ = environ_of(node)
        words = ("publish", "PRICE:A", json.dumps(PRICE), "--id", "one", "--type", "update")
        assert await run(environ, *words) == 0
        assert capsys.readouterr().out.endswith(":1\n")
        assert await run(environ, *words, "--json") == 0
        assert json.loads(capsys.readouterr().out)["seq"] == 1
        with pytest.raises(RequestRefused, match="bid"):
            await run(environ, "publish", "PRICE:A", '{"bid": "x"}')


async def test_inspect_shows_topics_users_and_connections(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as node, client_of(node) as client:
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        async with client.market.prices("A") as prices:
            await anext(prices)
            environ = admin_of(node)
            assert await run(environ, "inspect", "topic", "PRICE:A") == 0
            assert "PRICE:A" in capsys.readouterr().out
            assert await run(environ, "inspect", "user", "ann") == 0
            shown = capsys.readouterr().out
            assert "user ann" in shown
            assert "connections (1)" in shown
            assert await run(environ, "inspect", "user", "ann", "--json") == 0
            answer = json.loads(capsys.readouterr().out)
            [connection] = answer["connections"]
            identifier = connection["connection_id"]
            assert await run(environ, "inspect", "connection", identifier, "--json") == 0
            assert identifier in capsys.readouterr().out


async def test_inspect_shows_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run({}, "inspect", "topic", "ORDERBOOK:A/B@10", "--curl") == 0
    out = capsys.readouterr().out
    assert out.endswith("http://127.0.0.1:8000/api/v1/topics/ORDERBOOK:A%2FB@10\n")
    with pytest.raises(UsageError, match="the scope admin"):
        await run({}, "inspect", "user", "ann")


async def test_top_prints_each_round(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as node:
        words = ("top", "--count", "2", "--interval", "0.01", "--json")
        assert await run(admin_of(node), *words) == 0
    rounds = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(each["nodes"]) for each in rounds] == [1, 1]
    [node_figures] = rounds[1]["nodes"].values()
    assert node_figures["figures"]["connections"] == 0
    assert node_figures["per_second"]["messages_in"] == 0.0


async def test_top_draws_a_table_and_survives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(top, "is_interactive", lambda: True)
    terminal = Console(file=screen, width=100, force_terminal=True, no_color=True)
    monkeypatch.setattr(top, "console", lambda: terminal)
    async with running() as node:
        environ = admin_of(node)
        assert await run(environ, "top", "--count", "1") == 0
        assert "connections" in screen.getvalue()
        screen.truncate(0)
        drawing = asyncio.create_task(run(environ, "top", "--interval", "0.05"))
        await until(lambda: "connections" in screen.getvalue())
    await until(lambda: "cannot reach" in screen.getvalue())
    assert not drawing.done()
    drawing.cancel()
    await asyncio.wait({drawing})


async def test_server_that_is_away_is_named() -> None:
    environ = {"FLOORCAST_URL": f"http://127.0.0.1:{free_port()}", "FLOORCAST_TOKEN": "t"}
    with pytest.raises(ServerUnavailable, match="cannot reach http://127"):
        await run(environ, "publish", "PRICE:A", "{}")


async def test_other_server_is_no_api() -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello" if request.method == "GET" else "{}", status=404)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", hello)
    async with TestServer(app) as server:
        environ = {"FLOORCAST_URL": str(server.make_url("/")), "FLOORCAST_TOKEN": "t"}
        with pytest.raises(ProtocolError, match="is no API of Floorcast"):
            await run(environ, "inspect", "topic", "PRICE:A")
        with pytest.raises(ProtocolError, match="answered 404"):
            await run(environ, "publish", "PRICE:A", "{}")


@pytest.mark.parametrize(
    ("failure", "status", "message"),
    [
        (UsageError("name the session"), 2, "floorcast: name the session\n"),
        (FloorcastError("no"), 1, "floorcast: no (client.failed)\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_each_failure_has_an_exit_status(
    failure: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(arguments: argparse.Namespace, environ: object) -> int:
        raise failure

    assert run_command(argparse.Namespace(run_tool=fail), {}) == status
    assert capsys.readouterr().err == message
