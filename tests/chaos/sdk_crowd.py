"""Run SDK users that read, publish and send, and record what they receive."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random

from client_sdk import Client, Gap, LiveBook, MessageStream, Session, SessionMessage, TradesMessage
from tests.chaos.reader_log import ReaderLog, position_key
from tests.kit.message_log import MessageLog, PositionKey

ROOM = "room"
SYMBOLS = ("A", "B")
TRADES = tuple(f"TRADES:{symbol}" for symbol in SYMBOLS)


class MessageLogs(dict[str, MessageLog]):
    """Message logs by the name of the topic or session."""

    def __missing__(self, name: str) -> MessageLog:
        self[name] = MessageLog(name)
        return self[name]


class ActivityGate:
    """Lets users work or holds them, and counts those still working."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self._active_count = 0

    @property
    def is_idle(self) -> bool:
        return not self.is_open.is_set() and not self._active_count

    @contextlib.asynccontextmanager
    async def work(self, seconds: float) -> AsyncIterator[None]:
        """Work in this block after a delay, once the gate is open."""
        await asyncio.sleep(seconds)
        await self.is_open.wait()
        self._active_count += 1
        try:
            yield
        finally:
            self._active_count -= 1


def trade_data(label: str) -> dict[str, object]:
    """The data of one trade, identified by a label."""
    return {"trades": [{"id": label, "price": "1.0", "qty": "1", "side": "buy", "ts": 1}]}


class User:
    """One client that follows the trades of all symbols, their books and a session."""

    def __init__(
        self, name: str, client: Client, logs: MessageLogs, gate: ActivityGate, read_seconds: float
    ):
        self.name = name
        self.client = client
        self.reader_logs: dict[str, ReaderLog] = {}
        self.books: list[LiveBook] = []
        self.session: Session
        self._logs = logs
        self._gate = gate
        # The processing time of each message.
        self._read_seconds = read_seconds
        self._random = Random(name)
        self._trades: MessageStream[TradesMessage | Gap]
        self._messages: MessageStream[SessionMessage | Gap]

    async def run(self, ready: asyncio.Event) -> None:
        """Run until cancelled; set `ready` when all is subscribed."""
        market = self.client.market
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(self.client)
            self._trades = await enter(market.trades(*SYMBOLS))
            self.session = await enter(self.client.session.join(ROOM))
            self._messages = await enter(self.session.messages())
            self.books = [await enter(market.book(symbol)) for symbol in SYMBOLS]
            for name in (*TRADES, ROOM):
                start = self._stream(name).position(name)
                assert start is not None
                self.reader_logs[name] = ReaderLog(self._logs[name], start)
            ready.set()
            async with asyncio.TaskGroup() as group:
                jobs = [self._read_trades(), self._read_messages(), self._send()]
                jobs += [self._publish(topic) for topic in TRADES]
                for number, job in enumerate(jobs):
                    group.create_task(job, name=f"{self.name}-{number}")

    def _stream(
        self, name: str
    ) -> MessageStream[TradesMessage | Gap] | MessageStream[SessionMessage | Gap]:
        return self._messages if name == ROOM else self._trades

    def has_reached(self, name: str, position: PositionKey) -> bool:
        """Whether the stream has received this position, read or buffered."""
        reached = self._stream(name).position(name)
        return reached is not None and position_key(reached) == position

    async def _read_trades(self) -> None:
        async for item in self._trades:
            if isinstance(item, Gap):
                self.reader_logs[item.topic].record_gap(item)
            else:
                label = str(item.data.trades[0].id)
                self.reader_logs[item.topic].record_message((item.epoch, item.seq), label)
            if self._read_seconds:
                await asyncio.sleep(self._read_seconds)

    async def _read_messages(self) -> None:
        log = self.reader_logs[ROOM]
        async for item in self._messages:
            if isinstance(item, Gap):
                log.record_gap(item)
            else:
                label = str(item.data["label"])
                assert label.startswith(item.user_id)
                log.record_message((item.epoch, item.seq), label)

    async def _publish(self, topic: str) -> None:
        number = 0
        while True:
            async with self._gate.work(self._random.uniform(0.03, 0.1)):
                number += 1
                label = f"{self.name}/{number}"
                position = await self.client.market.publish(topic, trade_data(label))
                self._logs[topic].acknowledge(position_key(position), label)

    async def _send(self) -> None:
        number = 0
        while True:
            async with self._gate.work(self._random.uniform(0.03, 0.1)):
                number += 1
                label = f"{self.name}/{number}"
                sent = await self.session.send({"label": label})
                self._logs[ROOM].acknowledge(position_key(sent.position), label)
