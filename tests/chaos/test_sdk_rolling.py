"""Test the SDK while all workers are renewed under load: once, in order, without a gap."""

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
from tests.chaos.reader_log import ReaderLog, position_key
from tests.chaos.sdk_crowd import ROOM, MessageLogs, trade_data
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.programs import require_program
from tests.kit.server.workers import Workers, workers

TOPIC = "TRADES:A"
USERS = ("ann", "bob", "cid", "dan")
PAUSE_SECONDS = 0.02
# Of each user, however short the renewal is.
LEAST_MESSAGES = 2
CONFIG = ClientConfig(
    backoff=BackoffConfig(least_seconds=0.02, first_seconds=0.2, most_seconds=0.3)
)


class RollingUser:
    """One user that reads, publishes and sends, connected to any worker."""

    def __init__(self, name: str, workers: Workers, logs: MessageLogs) -> None:
        self.name = name
        self.client = Client(workers.url, lambda: workers.token(name), config=CONFIG)
        self.reader_logs: dict[str, ReaderLog] = {}
        # Set when its last message is acknowledged.
        self.is_done = asyncio.Event()
        self._logs = logs

    async def run(self, ready: asyncio.Event, is_active: asyncio.Event) -> None:
        """Read until cancelled; publish and send while `is_active` is set."""
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(self.client)
            trades = await enter(self.client.market.trades("A"))
            session = await enter(self.client.session.join(ROOM))
            messages = await enter(session.messages())
            for name, start in (
                (TOPIC, trades.position(TOPIC)),
                (ROOM, messages.position(ROOM)),
            ):
                assert start is not None
                self.reader_logs[name] = ReaderLog(self._logs[name], start)
            ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(trades), name=f"{self.name} reads")
                group.create_task(self._read_messages(messages), name=f"{self.name} reads messages")
                group.create_task(self._send(session, is_active), name=f"{self.name} sends")

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
        while is_active.is_set() or number < LEAST_MESSAGES:
            number += 1
            label = f"{self.name}/{number}"
            published = await self.client.market.publish(TOPIC, trade_data(label))
            self._logs[TOPIC].acknowledge(position_key(published), label)
            sent = await session.send({"label": label})
            self._logs[ROOM].acknowledge(position_key(sent.position), label)
            await asyncio.sleep(PAUSE_SECONDS)
        self.is_done.set()

    def has_reached(self, name: str, position: Position) -> bool:
        """Whether it has read this position."""
        epoch, seq = self.reader_logs[name].position
        return epoch == position.epoch and seq >= position.seq


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of a private Redis."""
    require_program("redis-server")
    with private_redis() as url:
        yield url


async def test_worker_renewal_causes_no_gap(redis: str) -> None:
    environ = {"FLOORCAST_SERVER__DRAIN_SECONDS": "1", "FLOORCAST_BROKER__URL": redis}
    logs, is_active = MessageLogs(), asyncio.Event()
    with workers(2, environ=environ) as server:
        users = [RollingUser(name, server, logs) for name in USERS]
        async with asyncio.TaskGroup() as group:
            ready = [asyncio.Event() for _ in users]
            user_tasks = [
                group.create_task(user.run(event, is_active), name=user.name)
                for user, event in zip(users, ready, strict=True)
            ]
            for event in ready:
                await event.wait()
            is_active.set()
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(server.until_logged, "all workers are renewed")
            is_active.clear()
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                for user in users:
                    await user.is_done.wait()
            await until_caught_up(users, logs)
            for task in user_tasks:
                task.cancel()
    for log in logs.values():
        log.check_unique()
    for user in users:
        assert user.client.stats.reconnects >= 1
        assert user.client.stats.gaps == 0
        for reader_log in user.reader_logs.values():
            reader_log.check()
            assert reader_log.count >= LEAST_MESSAGES * len(USERS)


async def until_caught_up(users: list[RollingUser], logs: MessageLogs) -> None:
    """Wait until every user has read every recorded message."""
    positions = [
        (name, Position(epoch=epoch, seq=seq))
        for name, log in logs.items()
        for epoch, seq in log.messages
    ]
    await until(lambda: all(user.has_reached(*each) for user in users for each in positions))
