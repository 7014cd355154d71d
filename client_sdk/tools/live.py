"""The live screen of `floorcast tail`: redrawn at most ten times a second."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from client_sdk.client import Client
from client_sdk.connection.states import ClientState
from client_sdk.contract import PriceMessage, Stream, TradesMessage
from client_sdk.market.live_book import LiveBook
from client_sdk.reading.gaps import Gap
from client_sdk.sessions.session import Session
from client_sdk.tools.screens import LadderPanel, LogPanel, PricesPanel, RoomPanel, TapePanel
from client_sdk.tools.terminal import console

_FRAME_SECONDS = 0.1
# Without a change only the ages move.
_IDLE_SECONDS = 1.0
_LINES = 15


class _Screen:
    """The panels of the topics, and what reads into them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.changed = asyncio.Event()
        self._panels: list[Callable[[], RenderableType]] = []
        self.readers: list[Coroutine[Any, Any, None]] = []

    def add_book(self, book: LiveBook, levels: int) -> None:
        """Show a ladder."""
        panel = LadderPanel(book.symbol, levels=levels)
        self._panels.append(lambda: panel.render(book.now, book.resyncs))

        async def read() -> None:
            async for _ in book:
                self.changed.set()

        self.readers.append(read())

    def add_topics(self, topics: list[str], interval_ms: int) -> None:
        """Show prices as a table, trades as a tape, everything else as lines."""
        prices, tape, log = PricesPanel(), TapePanel(lines=_LINES), LogPanel(lines=_LINES)
        market = self._client.market
        kinds = {each.partition(":")[0] for each in topics}
        if Stream.PRICE in kinds:
            symbols = [each for each in topics if each.startswith(Stream.PRICE)]
            self._panels.append(
                lambda: prices.render({each: market.status(each) for each in symbols})
            )
        if Stream.TRADES in kinds:
            self._panels.append(tape.render)
        if kinds - {Stream.PRICE, Stream.TRADES}:
            self._panels.append(log.render)

        async def read() -> None:
            async for item in market.stream(*topics, interval_ms=interval_ms):
                is_trades = isinstance(item, Gap) and item.topic.startswith(Stream.TRADES)
                if isinstance(item, PriceMessage):
                    prices.add(item)
                elif isinstance(item, TradesMessage) or (is_trades and isinstance(item, Gap)):
                    tape.add(item)
                else:
                    log.add(item)
                self.changed.set()

        self.readers.append(read())

    async def add_session(self, session: Session) -> None:
        """Show a room."""
        attendance = await session.participants()
        panel = RoomPanel(session.id, attendance.participant_count, lines=_LINES)
        self._panels.append(panel.render)

        async def read_messages() -> None:
            async for item in session.messages():
                panel.add(item)
                self.changed.set()

        async def read_events() -> None:
            async for event in session.events():
                panel.add_event(event)
                self.changed.set()

        self.readers += [read_messages(), read_events()]

    def render(self) -> RenderableType:
        """All panels below each other, and the state of the connection."""
        client = self._client
        online = client.state is ClientState.ONLINE
        reason = "" if client.error is None else f" {client.error}"
        stats = client.stats
        status = Text.assemble(
            (client.state.value, "green" if online else "bold red"),
            f"{reason}  received {stats.received}  reconnects {stats.reconnects}"
            f"  gaps {stats.gaps}  p99 {stats.latency.p99_ms:.0f} ms   Ctrl-C ends",
        )
        return Group(*(panel() for panel in self._panels), status)


async def show(
    client: Client, topics: list[str], sessions: list[str], interval_ms: int, levels: int
) -> None:
    """Draw until Ctrl-C; raises the error that ended a topic or session."""
    terminal = console()
    screen = _Screen(client)
    books = [each for each in topics if each.startswith(f"{Stream.ORDERBOOK}:")]
    others = [each for each in topics if each not in books]
    async with AsyncExitStack() as stack:
        for topic in books:
            symbol = topic.partition(":")[2]
            book = client.market.book(symbol, interval_ms=interval_ms)
            screen.add_book(await stack.enter_async_context(book), levels)
        if others:
            screen.add_topics(others, interval_ms)
        for session_id in sessions:
            session = await stack.enter_async_context(client.session.join(session_id))
            await screen.add_session(session)
        client.on_state(lambda state: screen.changed.set())
        with Live(console=terminal, screen=True, auto_refresh=False) as live:
            await _run_all([*screen.readers, _draw(live, screen)])


async def _run_all(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Run until the first one fails; raises its error."""
    tasks = [asyncio.create_task(each, name="tail") for each in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _draw(live: Live, screen: _Screen) -> None:
    while True:
        screen.changed.clear()
        live.update(screen.render(), refresh=True)
        await asyncio.sleep(_FRAME_SECONDS)
        try:
            async with asyncio.timeout(_IDLE_SECONDS - _FRAME_SECONDS):
                await screen.changed.wait()
        except TimeoutError:
            continue
