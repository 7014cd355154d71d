"""Publish at a steady rate, outside of the faulty network, and record what is acknowledged."""

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, Self

import socketio
from socketio.exceptions import SocketIOError

from tests.kit.checksum import checksum

MESSAGES_PER_SECOND = 200
# One message of so many goes to a session.
SESSION_SHARE = 7
_MAX_BATCH = 20
_BATCH_SECONDS = 0.02
_CALL_SECONDS = 5

PRIVATE: dict[str, Callable[[str], dict[str, object]]] = {
    "ORDER_UPDATES": lambda message_id: {"order_id": message_id},
    "USER_DATA": lambda message_id: {"id": message_id},
    "RISK_ALERTS": lambda message_id: {"message": message_id},
}


@dataclass(slots=True)
class TradingLedger:
    """Acknowledged messages: all of stored topics, the final state of merged ones."""

    epochs: dict[str, str] = field(default_factory=dict)
    # Message ids by key and seq; the key of a private topic is `TOPIC@USER`.
    kept: defaultdict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    heads: dict[str, int] = field(default_factory=dict)
    prices: dict[str, dict[str, object]] = field(default_factory=dict)
    books: dict[str, "Book"] = field(default_factory=dict)
    count: int = 0

    def record(self, key: str, position: dict[str, Any]) -> int:
        """Record the position of a message; it must be the next one."""
        epoch, seq = position["epoch"], position["seq"]
        assert self.epochs.setdefault(key, epoch) == epoch, key
        assert seq == self.heads.get(key, 0) + 1, key
        self.heads[key] = seq
        self.count += 1
        return int(seq)


class Book:
    """An order book as its publisher knows it."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.sides: dict[str, dict[str, str]] = {"bids": {}, "asks": {}}

    def update(self) -> dict[str, object]:
        """Change a few levels at random; return the update message."""
        change: dict[str, list[tuple[str, str]]] = {"bids": [], "asks": []}
        for side, prices in (("bids", range(70, 100)), ("asks", range(100, 130))):
            levels = self.sides[side]
            for price in map(str, self._random.sample(prices, self._random.randint(0, 3))):
                quantity = str(self._random.randint(1, 99))
                if price in levels and self._random.random() < 0.4:
                    quantity = "0"
                    del levels[price]
                else:
                    levels[price] = quantity
                change[side].append((price, quantity))
        return {**change, "checksum": self.checksum()}

    def checksum(self) -> int:
        """The checksum that every subscriber's book must have."""
        return checksum(self.sides["bids"], self.sides["asks"])


class Trading:
    """A market publisher and a session member, each with its own connection."""

    def __init__(
        self,
        market_url: str,
        session_url: str,
        token: str,
        *,
        topics: list[str],
        sessions: list[str],
        users: list[str],
        seed: int,
    ) -> None:
        self.ledger = TradingLedger()
        self._market_url = market_url
        self._session_url = session_url
        self._token = token
        self._sessions = sessions
        self._random = Random(seed)
        self._keys = [
            key
            for topic in topics
            for key in ([topic] if ":" in topic else [f"{topic}@{user}" for user in users])
        ]
        for topic in topics:
            if topic.startswith("ORDERBOOK"):
                self.ledger.books[topic] = Book(self._random)
        self._numbers = itertools.count(1)
        self._clients = {"/market": _new_client(), "/session": _new_client()}

    async def __aenter__(self) -> Self:
        for namespace in self._clients:
            await self._connect(namespace)
        return self

    async def _connect(self, namespace: str) -> None:
        await self._clients[namespace].connect(
            self._market_url if namespace == "/market" else self._session_url,
            transports=["websocket"],
            namespaces=[namespace],
            auth={"token": self._token, "recovery": False},
        )
        if namespace == "/session":
            for session_id in self._sessions:
                reply = await self._call(namespace, "join", {"session_id": session_id})
                epoch = self.ledger.epochs.setdefault(session_id, reply["epoch"])
                assert epoch == reply["epoch"]

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            await client.disconnect()

    async def run(self, seconds: float) -> None:
        """Publish for this long, as evenly as the machine allows, until all messages are out."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        done, wanted = 0, int(seconds * MESSAGES_PER_SECOND)
        while done < wanted:
            due = min(wanted, int((loop.time() - began) * MESSAGES_PER_SECOND))
            count = min(due - done, _MAX_BATCH)
            if count:
                async with asyncio.TaskGroup() as group:
                    said = sum((done + index) % SESSION_SHARE == 0 for index in range(count))
                    group.create_task(self._send(said), name="speak")
                    group.create_task(self._publish(count - said), name="publish")
                done += count
            await asyncio.sleep(_BATCH_SECONDS)

    async def _publish(self, count: int) -> None:
        chosen = [(self._random.choice(self._keys), str(next(self._numbers))) for _ in range(count)]
        if not chosen:
            return
        messages = [{**self._message(*each), "id": each[1]} for each in chosen]
        reply = await self._call("/market", "publish", {"messages": messages})
        for (key, message_id), position in zip(chosen, reply["positions"], strict=True):
            seq = self.ledger.record(key, position)
            if not key.startswith(("PRICE", "ORDERBOOK")):
                self.ledger.kept[key][seq] = message_id

    def _message(self, key: str, message_id: str) -> dict[str, object]:
        topic, _, user = key.partition("@")
        if user:
            return {"topic": topic, "user": user, "data": PRIVATE[topic](message_id)}
        data: dict[str, object]
        if topic.startswith("PRICE"):
            data = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": message_id}
            self.ledger.prices[topic] = data
        elif topic.startswith("TRADES"):
            trade = {"id": message_id, "price": "1.01", "qty": "3", "side": "buy", "ts": 1}
            data = {"trades": [trade]}
        else:
            book = self.ledger.books[topic]
            # A book begins with a snapshot.
            kind = "update" if any(book.sides.values()) else "snapshot"
            return {"topic": topic, "data": book.update(), "type": kind}
        return {"topic": topic, "data": data}

    async def _send(self, count: int) -> None:
        for _ in range(count):
            session_id, message_id = self._random.choice(self._sessions), str(next(self._numbers))
            data = {"is": message_id}
            body: dict[str, object] = {"session_id": session_id, "data": data, "id": message_id}
            reply = await self._call("/session", "send", body)
            seq = self.ledger.record(session_id, reply)
            self.ledger.kept[session_id][seq] = message_id

    async def _call(self, namespace: str, event: str, payload: dict[str, object]) -> dict[str, Any]:
        """Call; if a busy machine missed a ping, connect again and repeat it under its ids."""
        while True:
            client = self._clients[namespace]
            with contextlib.suppress(SocketIOError):
                reply: dict[str, Any] = await client.call(
                    event, payload, namespace=namespace, timeout=_CALL_SECONDS
                )
                assert reply["ok"], (event, reply)
                return reply
            await client.disconnect()
            self._clients[namespace] = _new_client()
            await self._connect(namespace)


def _new_client() -> Any:
    return socketio.AsyncClient(reconnection=False)
