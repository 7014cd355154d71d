"""Tests the clients of a draining node while its successor, of this or a newer release, serves."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.redis.servers import redis_server
from tests.kit.server.previous import extract_previous
from tests.kit.server.workers import Workers, workers

TOPICS = ["TRADES:A", "PRICE:A", "ORDERBOOK:A"]
SESSION = "room"
# Of each topic and of the session, before the drain and during it.
BEFORE, DURING = 10, 6
DRAIN_SECONDS = "8"


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    with redis_server() as redis:
        yield {
            "FLOORCAST_BROKER__URL": redis.url,
            "FLOORCAST_SERVER__DRAIN_SECONDS": DRAIN_SECONDS,
        }


class Reader:
    """One connection with its topics or its session; keeps the position of every message."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.positions: dict[str, list[tuple[str, int]]] = {}
        self.others: list[str] = []

    async def read(self) -> None:
        """Read until the server closes the connection."""
        with contextlib.suppress(ConnectionError, EOFError):
            while True:
                text = await self.client.text()
                if text == "2":
                    self.client.send("3")
                elif text.startswith("42"):
                    event, body = json.loads(text[text.index("[") :])[:2]
                    self._record(event, body)

    def _record(self, event: str, body: dict[str, Any]) -> None:
        if "seq" in body and body.get("type") != "heartbeat":
            name = body.get("topic", body.get("session_id", event))
            self.positions.setdefault(name, []).append((body["epoch"], body["seq"]))
        else:
            self.others.append(event)

    def has_read(self, count: int) -> bool:
        return bool(self.positions) and all(
            positions[-1][1] >= count for positions in self.positions.values()
        )


@contextlib.asynccontextmanager
async def readers(node: Workers, count: int) -> AsyncIterator[list[Reader]]:
    """Clients of a node: each a subscriber and a member."""
    found = []
    async with contextlib.AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for number in range(count):
            market = await RawClient.connect(node.port, node.token(f"u{number}"))
            assert (await market.call("subscribe", {"topics": TOPICS}))["ok"]
            member = await RawClient.connect(
                node.port, node.token(f"u{number}"), namespace="/session", session_id=SESSION
            )
            for client in (market, member):
                reader = Reader(client)
                found.append(reader)
                stack.callback(client.cut)
                stack.callback(group.create_task(reader.read(), name=f"reader {len(found)}").cancel)
        yield found


async def publish(node: Workers, first: int, last: int) -> None:
    """Publish to each topic and send to the session through a node."""
    market = await RawClient.connect(node.port, node.token("publisher"))
    member = await RawClient.connect(
        node.port, node.token("publisher"), namespace="/session", session_id=SESSION
    )
    for number in range(first, last + 1):
        trade = {"id": str(number), "price": "1", "qty": "1", "side": "buy", "ts": 1}
        book = {"bids": [["1", str(number)]], "asks": [["2", "1"]]}
        messages: list[dict[str, object]] = [
            {"topic": "TRADES:A", "data": {"trades": [trade]}},
            {"topic": "PRICE:A", "data": {"bid": "1", "ask": "2", "last": "1", "volume": "1"}},
            {"topic": "ORDERBOOK:A", "data": book, "type": "snapshot" if number == 1 else "update"},
        ]
        reply = await market.call("publish", {"messages": messages})
        assert reply["ok"], reply
        sent = await member.call(
            "send", {"session_id": SESSION, "data": {"n": number}}, namespace="/session"
        )
        assert sent["ok"], sent
    for client in (market, member):
        client.cut()


@pytest.mark.parametrize("upgrade", [False, True], ids=["same release", "release before"])
async def test_clients_of_a_draining_node_get_nothing_again(
    upgrade: bool, environ: dict[str, str], tmp_path: Path
) -> None:
    checkout = extract_previous(tmp_path / "previous") if upgrade else None
    with contextlib.ExitStack() as started:
        enter = started.enter_context
        old = await asyncio.to_thread(enter, workers(1, environ=environ, checkout=checkout))
        await publish(old, 1, BEFORE)
        async with readers(old, 6) as clients:
            new = await asyncio.to_thread(enter, workers(1, environ=environ))
            await publish(new, BEFORE + 1, BEFORE + DURING)
            await until(lambda: all(each.has_read(BEFORE + DURING) for each in clients))
            old.process.send_signal(signal.SIGTERM)
            await until(lambda: all("reconnect_hint" in each.others for each in clients))
            await publish(new, BEFORE + DURING + 1, BEFORE + 2 * DURING)
            assert await asyncio.to_thread(old.process.wait, MAX_WAIT_SECONDS) == 0
        for each in clients:
            for name, positions in each.positions.items():
                assert len({epoch for epoch, _ in positions}) == 1, name
                seqs = [seq for _, seq in positions]
                assert seqs == sorted(set(seqs)), (name, seqs)
                assert seqs[0] > BEFORE, "what its reply to the subscription had"
        late = [
            each
            for each in clients
            if max(seq for positions in each.positions.values() for _, seq in positions)
            > BEFORE + DURING
        ]
        assert late, "some clients were still connected"
