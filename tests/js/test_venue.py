"""Runs `serve --feed ccxt:kraken` against a local Kraken, with a stock JavaScript client."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.feeds.sources.ccxt.rig import NEEDS_CCXT
from tests.feeds.venues.kraken import KrakenVenue
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.demo import demo

pytestmark = [pytest.mark.sockets, NEEDS_CCXT]

FOLDER = Path(__file__).parent
SYMBOL = "BTC/USD"
STREAMS = ("PRICE", "TRADES", "ORDERBOOK")
CHANNELS = ("ticker", "trade", "book")


class Viewer:
    """The process of a stock client; what it has printed and was not expected so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: list[dict[str, Any]] = []

    async def expect(self, stream: str, **fields: object) -> None:
        """Wait for a message of a stream with these fields; the ones before it may be any."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while True:
                found = [each for each in self._lines if each["stream"] == stream]
                for line in found:
                    self._lines.remove(line)
                    if fields.items() <= line.items():
                        return
                await self._read()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the client has ended: its book does not match the checksum"
        self._lines.append(json.loads(line))


@contextlib.asynccontextmanager
async def viewer(url: str, token: str) -> AsyncIterator[Viewer]:
    assert (FOLDER / "node_modules").is_dir(), "run `npm --prefix tests/js ci` first"
    process = await asyncio.create_subprocess_exec(
        "node",
        str(FOLDER / "venue" / "viewer.mjs"),
        env={
            **os.environ,
            "FLOORCAST_URL": url,
            "FLOORCAST_TOKEN": token,
            "FLOORCAST_SYMBOL": SYMBOL,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Viewer(process)
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def server(venue: KrakenVenue, settings: Path) -> AsyncIterator[tuple[str, str]]:
    """The address of a server with the feed of a venue, and a token."""
    urls = json.dumps(venue.options["urls"]).replace(": ", " = ")
    settings.write_text(f"[feed.ccxt]\nurls = {urls}\nrate_limit = false\nsilent_seconds = 1\n")
    context = demo("--config", str(settings), "--feed", "ccxt:kraken", "--symbols", SYMBOL)
    # It reads until the server is ready; meanwhile the venue has to answer.
    running = await asyncio.to_thread(context.__enter__)
    try:
        yield running.url, running.tokens["trader"]
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def test_stock_client_sees_a_venue_cut_wrong_and_silent(tmp_path: Path) -> None:
    async with (
        KrakenVenue() as venue,
        server(venue, tmp_path / "floorcast.toml") as (url, token),
        viewer(url, token) as client,
    ):
        await client.expect("subscribed", ok=True)

        async def follows(number: int, price: str, quantity: str) -> None:
            """Whatever the venue does reaches the client."""
            await until(lambda: all(venue.subscribers(f"{each} {SYMBOL}") for each in CHANNELS))
            venue.tick(SYMBOL, "100.0", "101.0", price)
            venue.trade(SYMBOL, number, int(time.time() * 1000), price)
            venue.set_level(SYMBOL, "100.5", quantity)
            await client.expect("PRICE", last=price)
            await client.expect("TRADES", id=str(number))
            await client.expect("ORDERBOOK", bid=["100.5", quantity])

        await follows(1, "100.5", "1.00000000")
        # A change is lost: the checksum of the next one does not match.
        venue.set_level(SYMBOL, "99.5", "2.00000000", lose=True)
        venue.set_level(SYMBOL, "98.5", "3.00000000")
        await client.expect("ORDERBOOK", state="STALE")
        await client.expect("ORDERBOOK", state="LIVE")
        await follows(2, "100.6", "4.00000000")
        venue.cut()
        for stream in STREAMS:
            await client.expect(stream, state="STALE")
        await follows(3, "100.7", "5.00000000")
        venue.is_silent = True
        for stream in STREAMS:
            await client.expect(stream, state="STALE")
        venue.is_silent = False
        # A connection of the meantime has not got the answers to what it asked for.
        venue.cut()
        await follows(4, "100.8", "6.00000000")
