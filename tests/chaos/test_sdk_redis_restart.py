"""The client SDK while Redis restarts without loss: nothing comes twice, no loss is invented."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest

from client_sdk import (
    Client,
    Gap,
    GapReason,
    MessageStream,
    ServerUnavailable,
    Session,
    SessionMessage,
    TradesMessage,
)
from tests.chaos.sdk_crowd import trade_data
from tests.kit.clients.sdk import abort_connections, client_of
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.in_process import RunningServer, running

ROOM = "room"
TOPIC = "TRADES:A"
BEFORE, AFTER = 4, 3


@pytest.fixture
def persistent_redis() -> Iterator[RedisServer]:
    """A Redis that keeps every write through a restart."""
    with redis_server("--appendfsync", "always", is_persistent=True) as server:
        yield server


@dataclass(slots=True)
class Read:
    """What the readers of one client got, by the name of the topic or session."""

    labels: dict[str, list[str]] = field(default_factory=lambda: {TOPIC: [], ROOM: []})
    gaps: dict[str, list[Gap]] = field(default_factory=lambda: {TOPIC: [], ROOM: []})

    async def trades(self, stream: MessageStream[TradesMessage | Gap]) -> None:
        async for item in stream:
            if isinstance(item, Gap):
                self.gaps[TOPIC].append(item)
            else:
                self.labels[TOPIC].append(str(item.data.trades[0].id))

    async def messages(self, stream: MessageStream[SessionMessage | Gap]) -> None:
        async for item in stream:
            if isinstance(item, Gap):
                self.gaps[ROOM].append(item)
            else:
                self.labels[ROOM].append(str(item.data["label"]))

    def has(self, count: int) -> bool:
        return all(len(labels) >= count for labels in self.labels.values())


@contextlib.asynccontextmanager
async def reading(client: Client) -> AsyncIterator[tuple[Session, Read]]:
    """Read trades and a session in the background."""
    read = Read()
    async with (
        client.market.trades("A") as trades,
        client.session.join(ROOM) as session,
        session.messages() as messages,
        asyncio.TaskGroup() as group,
    ):
        tasks = [
            group.create_task(read.trades(trades), name="trades"),
            group.create_task(read.messages(messages), name="messages"),
        ]
        yield session, read
        for task in tasks:
            task.cancel()


async def publish(client: Client, session: Session, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await client.market.publish(TOPIC, trade_data(str(number)))
        await session.send({"label": str(number)})


@pytest.mark.parametrize("reconnects", [False, True], ids=["stays connected", "reconnects"])
async def test_redis_restart_without_loss_repeats_nothing(
    persistent_redis: RedisServer, reconnects: bool
) -> None:
    async with (
        running({"broker.url": persistent_redis.url}) as node,
        client_of(node) as client,
        reading(client) as (session, read),
    ):
        await publish(client, session, 1, BEFORE)
        await until(lambda: read.has(BEFORE))
        await restart(persistent_redis, node, client)
        if reconnects:
            abort_connections(node)
            await until(lambda: client.stats.reconnects == 1)
            await until(lambda: all(read.gaps.values()))
        await publish(client, session, BEFORE + 1, BEFORE + AFTER)
        await until(lambda: read.has(BEFORE + AFTER))
    numbers = [str(number) for number in range(1, BEFORE + AFTER + 1)]
    assert read.labels == {TOPIC: numbers, ROOM: numbers}
    # Redis cannot know that it lost nothing, so one gap of unknown length is right.
    for gaps in read.gaps.values():
        assert [(gap.reason, gap.missed_from) for gap in gaps] == [(GapReason.EPOCH, BEFORE + 1)]


async def restart(redis: RedisServer, node: RunningServer, client: Client) -> None:
    """Restart Redis, and wait until the node has noticed and publishes again."""
    redis.kill()
    await until(lambda: node.server.counters.total("broker.lost"))
    redis.start()
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not await is_publishing(client):
            await asyncio.sleep(0.01)


async def is_publishing(client: Client) -> bool:
    try:
        await client.market.publish("TRADES:ANOTHER", trade_data("x"))
    except ServerUnavailable:
        return False
    return True
