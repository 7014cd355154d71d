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
from tests.chaos.sdk_crowd import ROOM, MessageLogs, trade_data
from tests.chaos.sdk_ledger import ReaderLog
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.programs import require_program
from tests.kit.server.workers import Workers, workers

TOPIC = "TRADES:A"
USERS = ("ann", "bob", "cid", "dan")
PAUSE_SECONDS = 0.02
CONFIG = ClientConfig(
    backoff=BackoffConfig(least_seconds=0.02, first_seconds=0.2, most_seconds=0.3)
)


class RollingUser:
    """One user who reads, publishes and talks, on whichever worker."""

    def __init__(self, name: str, workers: Workers, logs: MessageLogs) -> None:
        self.name = name
        self.client = Client(workers.url, lambda: workers.token(name), config=CONFIG)
        self.reader_logs: dict[str, ReaderLog] = {}
        # Set when it has said its last, and that was acknowledged.
        self.is_done = asyncio.Event()
        self._logs = logs

    async def run(self, ready: asyncio.Event, is_active: asyncio.Event) -> None:
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
                self.reader_logs[name] = ReaderLog(self._logs[name], begins)
            ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(trades), name=f"{self.name} reads")
                group.create_task(self._read_messages(messages), name=f"{self.name} listens")
                group.create_task(self._send(session, is_active), name=f"{self.name} speaks")

    async def _read(self, trades: MessageStream[TradesMessage | Gap]) -> None:
        async for item in trades:
            assert not isinstance(item, Gap), item
            self.reader_logs[TOPIC].record_message(
                (item.epoch, item.seq), str(item.data.trades[0].id)
            )

    async def _read_messages(self, messages: MessageStream[SessionMessage | Gap]) -> None:
        async for item in messages:
            assert not isinstance(item, Gap), item
            self.reader_logs[ROOM].record_message((item.epoch, item.seq), str(item.data["label"]))

    async def _send(self, session: Session, is_active: asyncio.Event) -> None:
        number = 0
        await is_active.wait()
        while is_active.is_set():
            number += 1
            label = f"{self.name}/{number}"
            published = await self.client.market.publish(TOPIC, trade_data(label))
            self._logs[TOPIC].acknowledge(published, label)
            sent = await session.send({"label": label})
            self._logs[ROOM].acknowledge(sent.position, label)
            await asyncio.sleep(PAUSE_SECONDS)
        self.is_done.set()

    def has_reached(self, name: str, position: Position) -> bool:
        """Whether it has read so far."""
        epoch, seq = self.reader_logs[name].position
        return epoch == position.epoch and seq >= position.seq


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of a Redis for one test."""
    require_program("redis-server")
    with private_redis() as url:
        yield url


async def test_all_workers_are_renewed_and_nobody_notices(redis: str) -> None:
    environ = {"FLOORCAST_SERVER__DRAIN_SECONDS": "1", "FLOORCAST_BROKER__URL": redis}
    logs, going = MessageLogs(), asyncio.Event()
    with workers(2, environ=environ) as floor:
        users = [RollingUser(name, floor, logs) for name in USERS]
        async with asyncio.TaskGroup() as group:
            here = [asyncio.Event() for _ in users]
            living = [
                group.create_task(user.run(event, going), name=user.name)
                for user, event in zip(users, here, strict=True)
            ]
            for event in here:
                await event.wait()
            going.set()
            floor.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(floor.until_logged, "all workers are renewed")
            going.clear()
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                for user in users:
                    await user.is_done.wait()
            await until_caught_up(users, logs)
            for task in living:
                task.cancel()
    for log in logs.values():
        log.check_unique()
    for user in users:
        assert user.client.stats.reconnects >= 1
        assert user.client.stats.gaps == 0
        for diary in user.reader_logs.values():
            diary.check()
            assert diary.count > len(USERS)


async def until_caught_up(users: list[RollingUser], logs: MessageLogs) -> None:
    """Wait until everybody has read all that was acknowledged, and nothing more comes."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not all(
            user.has_reached(name, Position(epoch=epoch, seq=seq))
            for user in users
            for name, log in logs.items()
            for epoch, seq in log.labels
        ):
            await asyncio.sleep(0.01)
