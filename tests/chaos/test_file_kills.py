"""A server with a data folder, killed again and again while SDK clients publish to it.

`FLOORCAST_FILE_KILLS=200` is the long version.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from client_sdk import (
    Client,
    ClientConfig,
    FloorcastError,
    Gap,
    Position,
    Session,
    SessionError,
    TokenRevoked,
)
from client_sdk.connection.backoff import BackoffConfig
from client_sdk.contract import Scope
from server.core.sessions.records import session_channel
from tests.chaos.sdk_crowd import trade_data
from tests.kit.network.ports import free_ports
from tests.kit.patience import until
from tests.kit.server.demo import environ_without_settings
from tests.kit.server.in_process import ALL_SCOPES, SECRET
from tests.kit.server.workers import ROOT, Workers

KILLS = int(os.environ.get("FLOORCAST_FILE_KILLS", "4"))
PUBLISHERS = 12
TOPIC, ROOM = "TRADES:A", session_channel("default", "room")
CONFIG = ClientConfig(
    backoff=BackoffConfig(least_seconds=0.01, first_seconds=0.05, most_seconds=0.3)
)
UNLIMITED = (
    *("HISTORY__MESSAGES", "HISTORY__BYTES", "HISTORY__SECONDS", "LIMITS__EVENTS_PER_SECOND"),
    *("SESSION__HISTORY__MESSAGES", "SESSION__HISTORY__BYTES", "SESSION__HISTORY__SECONDS"),
)


@contextlib.asynccontextmanager
async def serving(folder: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `floorcast serve --data` until the block ends; it may have been killed by then."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "server.cli", "serve", "--data", str(folder)),
        *("--port", str(port), "--log-level", "error"),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={
            **environ_without_settings(),
            "FLOORCAST_AUTH__SECRET": SECRET,
            "FLOORCAST_SERVER__DRAIN_SECONDS": "1",
            "PYTHONPATH": str(ROOT),
            **{f"FLOORCAST_{name}": "0" for name in UNLIMITED},
        },
    )
    assert process.stdout is not None
    try:
        assert b"listening" in await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


@dataclass(slots=True)
class Load:
    """Publishers of trades and session messages, each with a label of its own."""

    acknowledged: dict[str, tuple[str, Position]] = field(default_factory=dict)
    read: dict[str, list[str]] = field(default_factory=lambda: {TOPIC: [], ROOM: []})
    gaps: list[Gap] = field(default_factory=list)
    is_over: bool = False

    async def publish(self, name: str, client: Client, session: Session) -> None:
        """Publish one message after the other; the client repeats those without a reply."""
        number = 0
        while not self.is_over:
            number += 1
            label = f"{name}-{number}"
            if number % 2:
                position = await client.market.publish(TOPIC, trade_data(label), timeout=60)
                self.acknowledged[label] = TOPIC, position
            else:
                sent = await session.send({"label": label}, timeout=60)
                self.acknowledged[label] = ROOM, sent.position

    async def read_trades(self, client: Client) -> None:
        async for item in client.market.trades("A"):
            if isinstance(item, Gap):
                self.gaps.append(item)
            else:
                self.read[TOPIC].append(str(item.data.trades[0].id))

    async def read_messages(self, session: Session) -> None:
        async for item in session.messages():
            if isinstance(item, Gap):
                self.gaps.append(item)
            else:
                self.read[ROOM].append(str(item.data["label"]))

    @property
    def read_count(self) -> int:
        return sum(map(len, self.read.values()))


def stored(folder: Path) -> dict[tuple[str, Position], str]:
    """The labels in the data file."""
    found = {}
    with contextlib.closing(sqlite3.connect(folder / "floorcast.db")) as connection:
        for channel, epoch, seq, data in connection.execute(
            "SELECT channel, epoch, seq, data FROM entries"
        ):
            body = json.loads(data)
            label = body["data"]["label"] if channel == ROOM else body["trades"][0]["id"]
            found[TOPIC if channel != ROOM else ROOM, Position(epoch=epoch, seq=seq)] = label
    return found


def written_states(folder: Path) -> set[str]:
    """The channels whose newest states are in the data file of a running server."""
    with contextlib.closing(sqlite3.connect(folder / "floorcast.db")) as connection:
        return {channel for (channel,) in connection.execute("SELECT channel FROM states")}


@pytest.mark.processes
@pytest.mark.sockets
@pytest.mark.timeout(120 + 10 * KILLS)
async def test_killed_server_loses_and_doubles_nothing(tmp_path: Path) -> None:
    [port] = free_ports(1)
    url, load, dice = f"http://127.0.0.1:{port}", Load(), random.Random(KILLS)
    async with contextlib.AsyncExitStack() as clients:
        server = await clients.enter_async_context(serving(tmp_path, port))
        writer, reader = [
            await clients.enter_async_context(Client(url, Workers.token(user), config=CONFIG))
            for user in ("ann", "bob")
        ]
        sessions = [await each.session.join("room") for each in (writer, reader)]
        reading = [
            asyncio.create_task(load.read_trades(reader)),
            asyncio.create_task(load.read_messages(sessions[1])),
        ]
        await reader.market.publish(TOPIC, trade_data("first"))
        await until(lambda: load.read[TOPIC] == ["first"])
        publishing = [
            asyncio.create_task(load.publish(f"p{number}", writer, sessions[0]))
            for number in range(PUBLISHERS)
        ]
        for _ in range(KILLS):
            before = len(load.acknowledged)
            await until(lambda before=before: len(load.acknowledged) > before + PUBLISHERS)
            await asyncio.sleep(dice.uniform(0, 0.3))
            server.kill()
            await server.wait()
            server = await clients.enter_async_context(serving(tmp_path, port))
        load.is_over = True
        await asyncio.gather(*publishing)
        await until(lambda: load.read_count > len(load.acknowledged))
        for each in reading:
            each.cancel()
        await asyncio.wait(reading)
    found = stored(tmp_path)
    lost = [label for label, where in load.acknowledged.items() if found.get(where) != label]
    doubled = [label for label, count in Counter(found.values()).items() if count > 1]
    print(f"{KILLS} kills, {len(load.acknowledged)} acknowledged, {len(lost)} lost, ", end="")
    print(f"{len(doubled)} doubled")
    assert (lost, doubled) == ([], [])
    assert len(found) == len(load.acknowledged) + 1
    assert load.gaps == []
    for channel, labels in load.read.items():
        assert labels == [
            label
            for (name, _), label in sorted(found.items(), key=lambda each: each[0][1].seq)
            if name == channel
        ]


@pytest.mark.processes
@pytest.mark.sockets
async def test_killed_server_keeps_what_outlives_a_process(tmp_path: Path) -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    scopes = (*ALL_SCOPES, Scope.SESSION_MODERATE, Scope.ADMIN)
    ann, eve = Workers.token("ann", scopes), Workers.token("eve")
    book = {"bids": [["1.0", "1"]], "asks": [["2.0", "1"]]}
    price = {"bid": "1.0", "ask": "1.2", "last": "1.1", "volume": "5"}
    async with serving(tmp_path, port) as server, Client(url, ann, config=CONFIG) as client:
        room = await client.session.join("room", metadata={"title": "desk"})
        closed = await client.session.join("job:1")
        sent = await room.send({"n": 1}, id="message")
        await closed.end()
        traded = await client.market.publish(TOPIC, trade_data("t"), id="trade")
        priced = await client.market.publish("PRICE:A", price)
        await client.market.publish("ORDERBOOK:A", book, type="snapshot")
        await call(url, ann, "users/bob/notify", event="fill", data={"n": 7}, critical=True)
        await call(url, ann, "tokens/revoke", user="eve")
        # The newest states are written within a second.
        await until(lambda: {"PRICE:A", "ORDERBOOK:A"} <= written_states(tmp_path))
        server.kill()
        await server.wait()
    bob = Client(url, Workers.token("bob"), config=CONFIG)
    async with serving(tmp_path, port), Client(url, ann, config=CONFIG) as client, bob:
        notified: list[Any] = []
        bob.session.on_notification(notified.append)
        await until(lambda: notified)
        assert notified[0].data == {"n": 7}
        room = await client.session.join("room")
        assert room.metadata == {"title": "desk"}
        assert [each.data for each in await room.history()] == [{"n": 1}]
        assert (await room.send({"n": 1}, id="message")).position == sent.position
        assert await client.market.publish(TOPIC, trade_data("t"), id="trade") == traded
        with pytest.raises(SessionError, match="closed"):
            await client.session.join("job:1")
        async with client.market.prices("A") as prices:
            tick = await anext(prices)
        assert (tick.data.last, tick.seq) == ("1.1", priced.seq)
        assert tick.epoch != priced.epoch, "newer ones may be lost"
        change = {"bids": [["1.0", "2"]], "asks": []}
        with pytest.raises(FloorcastError) as refused:
            await client.market.publish("ORDERBOOK:A", change)
        assert refused.value.code == "publish.snapshot_required"
        with pytest.raises(TokenRevoked):
            async with Client(url, eve, config=CONFIG) as revoked:
                await revoked.session.join("room")


async def call(url: str, token: str, path: str, **body: object) -> None:
    """Call the HTTP API."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}/api/v1/{path}", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
