"""The live screen of `floorcast tail` shows all panels, and the state of the connection."""

import asyncio
import io
import sys

import pytest
from rich.console import Console

from client_sdk import TopicError
from client_sdk.tools import live, progress, tail
from client_sdk.tools.progress import Progress
from tests.kit.clients.sdk import abort_connections, client_of
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, running
from tests.sdk.tools.commands import environ_of, run


@pytest.fixture(name="screen")
def screen_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    screen = io.StringIO()
    monkeypatch.setattr(tail, "is_interactive", lambda: True)
    terminal = Console(file=screen, force_terminal=True, width=120, height=80, no_color=True)
    monkeypatch.setattr(live, "console", lambda: terminal)
    return screen


async def shows(screen: io.StringIO, *texts: str) -> None:
    await until(lambda: all(text in screen.getvalue() for text in texts))


async def test_screen_shows_all_panels_and_survives_a_cut(screen: io.StringIO) -> None:
    async with running() as node, client_of(node, node.token("bob")) as bob:
        publish = node.server.market.publishing.publish
        await publish("PRICE:A", PRICE)
        await publish("ORDERBOOK:A", {"bids": [["9", "1"]], "asks": [["10", "1"]]}, kind="snapshot")
        trade = {"id": 1, "price": "9.5", "qty": "1", "side": "buy", "ts": 1}
        topics = ("PRICE:A", "ORDERBOOK:A", "TRADES:A", "USER_DATA", "session:desk")
        drawing = asyncio.create_task(run(environ_of(node), "tail", *topics))
        await shows(screen, "Prices", "Trades", "Messages", "desk: 1 in", "ONLINE", "spread 1")
        await publish("TRADES:A", {"trades": [trade]})
        await publish("USER_DATA", {"cash": "12"}, user="ann")
        async with bob.session.join("desk") as session:
            await session.send({"text": "hello"})
            await shows(screen, "9.5", "cash", "desk: 2 in", "hello", "joined")
        abort_connections(node)
        await shows(screen, "OFFLINE", "reconnects 1")
        drawing.cancel()
        await asyncio.wait({drawing})


async def test_screen_ends_with_the_error_of_a_topic(screen: io.StringIO) -> None:
    async with running() as node:
        with pytest.raises(TopicError, match="unknown topic NOPE"):
            await run(environ_of(node), "tail", "NOPE", "PRICE:A")


def test_progress_draws_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    terminal = Console(file=drawn, force_terminal=True)
    monkeypatch.setattr(progress, "console", lambda **_: terminal)
    with Progress("working", 2) as bar:
        bar.advance()
    assert drawn.getvalue() == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("working", 2) as bar:
        bar.advance()
    assert "working" in drawn.getvalue()
