"""Users of the client SDK who read, publish and talk, and write down what they were told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random

from client_sdk import Client, Gap, LiveBook, MessageStream, Session, SessionMessage, TradesMessage
from tests.chaos.sdk_ledger import Diary, Log

ROOM = "room"
SYMBOLS = ("A", "B")
TRADES = tuple(f"TRADES:{symbol}" for symbol in SYMBOLS)


class Logs(dict[str, Log]):
    """By the name of the topic or session."""

    def __missing__(self, name: str) -> Log:
        self[name] = Log(name)
        return self[name]


class Pace:
    """Lets everybody go on, or keeps them still; knows who is still at something."""

    def __init__(self) -> None:
        self.going = asyncio.Event()
        self._busy = 0

    @property
    def is_still(self) -> bool:
        return not self.going.is_set() and not self._busy

    @contextlib.asynccontextmanager
    async def turn(self, seconds: float) -> AsyncIterator[None]:
        """After a moment, and once everybody goes on."""
        await asyncio.sleep(seconds)
        await self.going.wait()
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1


def deal(label: str) -> dict[str, object]:
    """Trades with a name to know them by."""
    return {"trades": [{"id": label, "price": "1.0", "qty": "1", "side": "buy", "ts": 1}]}


class User:
    """One client: the trades of all symbols in one iterator, a session, and their books."""

    def __init__(self, name: str, client: Client, logs: Logs, pace: Pace, read_seconds: float):
        self.name = name
        self.client = client
        self.diaries: dict[str, Diary] = {}
        self.books: list[LiveBook] = []
        self.session: Session
        self._logs = logs
        self._pace = pace
        # What it does with each message takes so long.
        self._read_seconds = read_seconds
        self._dice = Random(name)
        self._trades: MessageStream[TradesMessage | Gap]
        self._messages: MessageStream[SessionMessage | Gap]

    async def live(self, here: asyncio.Event) -> None:
        """Do all of it until it is cancelled."""
        market = self.client.market
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(self.client)
            self._trades = await enter(market.trades(*SYMBOLS))
            self.session = await enter(self.client.session.join(ROOM))
            self._messages = await enter(self.session.messages())
            self.books = [await enter(market.book(symbol)) for symbol in SYMBOLS]
            for name in (*TRADES, ROOM):
                begins = self._stream(name).position(name)
                assert begins is not None
                self.diaries[name] = Diary(self._logs[name], begins)
            here.set()
            async with asyncio.TaskGroup() as group:
                works = [self._read_trades(), self._read_messages(), self._talk()]
                works += [self._publish(topic) for topic in TRADES]
                for number, work in enumerate(works):
                    group.create_task(work, name=f"{self.name}-{number}")

    def _stream(
        self, name: str
    ) -> MessageStream[TradesMessage | Gap] | MessageStream[SessionMessage | Gap]:
        return self._messages if name == ROOM else self._trades

    def has_come_to(self, name: str, place: tuple[str, int]) -> bool:
        """Whether its stream has, with what waits there to be read."""
        position = self._stream(name).position(name)
        return position is not None and (position.epoch, position.seq) == place

    async def _read_trades(self) -> None:
        async for item in self._trades:
            if isinstance(item, Gap):
                self.diaries[item.topic].take_gap(item)
            else:
                label = str(item.data.trades[0].id)
                self.diaries[item.topic].take((item.epoch, item.seq), label)
            if self._read_seconds:
                await asyncio.sleep(self._read_seconds)

    async def _read_messages(self) -> None:
        diary = self.diaries[ROOM]
        async for item in self._messages:
            if isinstance(item, Gap):
                diary.take_gap(item)
            else:
                label = str(item.data["label"])
                assert label.startswith(item.user_id)
                diary.take((item.epoch, item.seq), label)

    async def _publish(self, topic: str) -> None:
        number = 0
        while True:
            async with self._pace.turn(self._dice.uniform(0.03, 0.1)):
                number += 1
                label = f"{self.name}/{number}"
                position = await self.client.market.publish(topic, deal(label))
                self._logs[topic].acknowledge(position, label)

    async def _talk(self) -> None:
        number = 0
        while True:
            async with self._pace.turn(self._dice.uniform(0.03, 0.1)):
                number += 1
                label = f"{self.name}/{number}"
                sent = await self.session.send({"label": label})
                self._logs[ROOM].acknowledge(sent.position, label)
