"""The client SDK while all workers are renewed under load: once, in order, no gap."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import pytest

from client_sdk import (
    BackoffConfig,
    Client,
    ClientConfig,
    Gap,
    MessageStream,
    Position,
    Session,
    SessionMessage,
    TradesMessage,
)
from server.cli.private_redis import private_redis
from tests.chaos.sdk_crowd import ROOM, Logs, deal
from tests.chaos.sdk_ledger import Diary
from tests.kit.patience import PATIENCE_SECONDS
from tests.kit.programs import program
from tests.kit.server.workers import Workers, workers

TOPIC = "TRADES:A"
USERS = ("ann", "bob", "cid", "dan")
PAUSE_SECONDS = 0.02
CONFIG = ClientConfig(
    backoff=BackoffConfig(least_seconds=0.02, first_seconds=0.2, most_seconds=0.3)
)


class Traveller:
    """One user who reads, publishes and talks, on whichever worker."""

    def __init__(self, name: str, floor: Workers, logs: Logs) -> None:
        self.name = name
        self.client = Client(floor.url, lambda: floor.token(name), config=CONFIG)
        self.diaries: dict[str, Diary] = {}
        # Set when it has said its last, and that was acknowledged.
        self.silent = asyncio.Event()
        self._logs = logs

    async def live(self, here: asyncio.Event, going: asyncio.Event) -> None:
        """Read until it is cancelled; publish and talk as long as that goes on."""
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(self.client)
            trades = await enter(self.client.market.trades("A"))
            session = await enter(self.client.session.join(ROOM))
            messages = await enter(session.messages())
            for name, begins in (
                (TOPIC, trades.position(TOPIC)),
                (ROOM, messages.position(ROOM)),
            ):
                assert begins is not None
                self.diaries[name] = Diary(self._logs[name], begins)
            here.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(trades), name=f"{self.name} reads")
                group.create_task(self._listen(messages), name=f"{self.name} listens")
                group.create_task(self._speak(session, going), name=f"{self.name} speaks")

    async def _read(self, trades: MessageStream[TradesMessage | Gap]) -> None:
        async for item in trades:
            assert not isinstance(item, Gap), item
            self.diaries[TOPIC].take((item.epoch, item.seq), str(item.data.trades[0].id))

    async def _listen(self, messages: MessageStream[SessionMessage | Gap]) -> None:
        async for item in messages:
            assert not isinstance(item, Gap), item
            self.diaries[ROOM].take((item.epoch, item.seq), str(item.data["label"]))

    async def _speak(self, session: Session, going: asyncio.Event) -> None:
        number = 0
        await going.wait()
        while going.is_set():
            number += 1
            label = f"{self.name}/{number}"
            published = await self.client.market.publish(TOPIC, deal(label))
            self._logs[TOPIC].acknowledge(published, label)
            sent = await session.send({"label": label})
            self._logs[ROOM].acknowledge(sent.position, label)
            await asyncio.sleep(PAUSE_SECONDS)
        self.silent.set()

    def has_come_to(self, name: str, position: Position) -> bool:
        """Whether it has read so far."""
        epoch, seq = self.diaries[name].place
        return epoch == position.epoch and seq >= position.seq


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of a Redis for one test."""
    program("redis-server")
    with private_redis() as url:
        yield url


async def test_all_workers_are_renewed_and_nobody_notices(redis: str) -> None:
    environ = {"FLOORCAST_SERVER__DRAIN_SECONDS": "1", "FLOORCAST_BROKER__URL": redis}
    logs, going = Logs(), asyncio.Event()
    with workers(2, environ=environ) as floor:
        users = [Traveller(name, floor, logs) for name in USERS]
        async with asyncio.TaskGroup() as group:
            here = [asyncio.Event() for _ in users]
            living = [
                group.create_task(user.live(event, going), name=user.name)
                for user, event in zip(users, here, strict=True)
            ]
            for event in here:
                await event.wait()
            going.set()
            floor.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(floor.until, "all workers are renewed")
            going.clear()
            async with asyncio.timeout(PATIENCE_SECONDS):
                for user in users:
                    await user.silent.wait()
            await until_all_have_all(users, logs)
            for task in living:
                task.cancel()
    for log in logs.values():
        log.check()
    for user in users:
        assert user.client.stats.reconnects >= 1
        assert user.client.stats.gaps == 0
        for diary in user.diaries.values():
            diary.check()
            assert diary.count > len(USERS)


async def until_all_have_all(users: list[Traveller], logs: Logs) -> None:
    """Wait until everybody has read all that was acknowledged, and nothing more comes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(
            user.has_come_to(name, Position(epoch=epoch, seq=seq))
            for user in users
            for name, log in logs.items()
            for epoch, seq in log.labels
        ):
            await asyncio.sleep(0.01)
