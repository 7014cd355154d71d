"""The load of restarts: clients that come back, ask for what they missed, and keep what they got.

Nothing is judged while it is measured: that would cost more than what it measures.
"""

import argparse
import asyncio
import functools
import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import socketio
import uvloop

from benchmarks.crowd import PATIENCE_SECONDS, Crowd, Member
from benchmarks.lines import commands, say

TOPIC = "TRADES:BTCUSDT"
TRADE = {"price": "64250.10", "qty": "0.5", "side": "buy", "ts": 1}
PUBLISH_EVERY_SECONDS = 0.1
RETRY_SECONDS = 0.1
AT_ONCE = 64
_SEQ = re.compile(rb'"seq":(\d+)')
_EPOCH = re.compile(rb'"epoch":"([^"]+)"')


class Seat:
    """One client, whichever connection it has."""

    def __init__(self) -> None:
        self.heard: list[bytearray] = []
        self.epoch = ""
        self.seq = 0

    def request(self) -> dict[str, object]:
        """What it asks for when it connects."""
        since = {TOPIC: {"epoch": self.epoch, "seq": self.seq}} if self.epoch else {}
        return {"topics": [TOPIC], "since": since}

    def note(self) -> None:
        """How far it has come, by a glance at the last connection."""
        if found := _EPOCH.search(self.heard[-1]):
            self.epoch = found[1].decode()
            self.seq = max(map(int, _SEQ.findall(self.heard[-1])))

    def judge(self) -> "tuple[int, int, int]":
        """How often it began anew, how many messages it missed unknowingly, and where it stands."""
        resets = gaps = 0
        position: tuple[str, int] | None = None
        for heard in self.heard:
            for message in _messages(heard):
                if "ok" in message:
                    topic = message["topics"][TOPIC]
                    if topic["recovered"]:
                        for missed in topic["missed"]:
                            position, gap = _step(position, missed)
                            gaps += gap
                    elif position is not None:
                        resets += 1
                    position = topic["epoch"], topic["seq"]
                else:
                    position, gap = _step(position, message)
                    gaps += gap
        return resets, gaps, 0 if position is None else position[1]


def _step(
    position: tuple[str, int] | None, message: dict[str, Any]
) -> tuple[tuple[str, int], bool]:
    epoch, seq = message["epoch"], message["seq"]
    follows = position is not None and position[0] == epoch and seq == position[1] + 1
    return (epoch, seq), not follows


def _messages(heard: bytearray) -> Iterator[dict[str, Any]]:
    """The answer to `subscribe`, and the trades."""
    at = heard.find(b"\r\n\r\n") + 4
    while at + 2 <= len(heard):
        length, at = heard[at + 1], at + 2
        if length >= 126:
            extra = 2 if length == 126 else 8
            length, at = int.from_bytes(heard[at : at + extra], "big"), at + extra
        if at + length > len(heard):
            return
        text, at = heard[at : at + length], at + length
        if text.startswith(b"43/market,0"):
            yield json.loads(text[11:])[0]
        elif text.startswith(b'42/market,["trades"'):
            message = json.loads(text[10:])[1]
            if message["type"] != "heartbeat":
                yield message


class Returner(Member):
    """One connection of a seat."""

    __slots__ = ("_heard", "seat")

    def __init__(self, crowd: "Returning", seat: Seat) -> None:
        super().__init__(crowd, "subscribe", seat.request())
        self.seat = seat
        self._heard = bytearray()
        seat.heard.append(self._heard)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        super().data_received(data)

    def take(self, data: bytes) -> bytes:
        return data[-2:]


class Returning(Crowd):
    """Everybody who is thrown out comes back at once, so many at a time."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(port, token)
        self._token = token
        self.seats: list[Seat] = []
        self.inside: set[Seat] = set()
        self.acknowledged: list[int] = []
        self.last_in = 0.0
        self._outside: asyncio.Queue[Seat] = asyncio.Queue()
        self._everybody = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def member(self) -> Returner:
        raise NotImplementedError("who comes in is decided by seats")

    async def fill(self, count: int) -> float:
        """Let so many in; how many seconds it took."""
        began = time.monotonic()
        self.seats = [Seat() for _ in range(count)]
        for seat in self.seats:
            self._outside.put_nowait(seat)
        self._joined = asyncio.Semaphore(AT_ONCE)
        self._run(self._let_in(), "let-in")
        return await self.back() - began

    async def back(self) -> float:
        """Wait until everybody is in; the moment at which the last one was."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._everybody.wait()
        return self.last_in

    def publish(self) -> None:
        """Publish from now on, whatever happens to the server."""
        self._run(self._keep_publishing(), "publish")

    def one_joined(self, member: Member) -> None:
        assert isinstance(member, Returner)
        self._joined.release()
        self.inside.add(member.seat)
        if len(self.inside) == len(self.seats):
            self.last_in = time.monotonic()
            self._everybody.set()

    def one_lost(self, member: Member) -> None:
        assert isinstance(member, Returner)
        self._everybody.clear()
        if member.seat in self.inside:
            self.inside.remove(member.seat)
        else:
            self._joined.release()
        member.seat.note()
        self._outside.put_nowait(member.seat)

    async def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            seat = await self._outside.get()
            await self._joined.acquire()
            try:
                await loop.create_connection(
                    functools.partial(Returner, self, seat), "127.0.0.1", self._port
                )
            except OSError:
                self._joined.release()
                self._outside.put_nowait(seat)
                await asyncio.sleep(RETRY_SECONDS)

    async def _keep_publishing(self) -> None:
        number = 0
        while True:
            client = socketio.AsyncClient(reconnection=False)
            try:
                await client.connect(
                    f"http://127.0.0.1:{self._port}",
                    auth={"token": self._token, "recovery": False},
                    namespaces=["/market"],
                    transports=["websocket"],
                )
                while True:
                    trade = {**TRADE, "id": str(number)}
                    message = {"topic": TOPIC, "data": {"trades": [trade]}, "id": f"n{number}"}
                    reply = await client.call(
                        "publish", {"messages": [message]}, namespace="/market", timeout=2
                    )
                    if reply["ok"]:
                        self.acknowledged.append(reply["positions"][0]["seq"])
                        number += 1
                    await asyncio.sleep(PUBLISH_EVERY_SECONDS)
            except socketio.exceptions.SocketIOError:
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.5))
            finally:
                await client.disconnect()

    def _run(self, work: Any, name: str) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work, name=name))


async def main(arguments: argparse.Namespace) -> None:
    load = Returning(arguments.port, arguments.token)
    async for command, *words in commands():
        answer: dict[str, Any] = {}
        if command == "fill":
            answer = {"seconds": await load.fill(int(words[0]))}
        elif command == "publish":
            load.publish()
        elif command == "back":
            answer = {"at": await load.back()}
        elif command == "judge":
            # What was acknowledged last has to arrive.
            known, acknowledged = len(load.acknowledged), load.acknowledged[-1]
            await asyncio.sleep(1)
            judged = [seat.judge() for seat in load.seats]
            answer = {
                "acknowledged": known,
                "resets": sum(resets for resets, _, _ in judged),
                "gaps": sum(gaps for _, gaps, _ in judged),
                "behind": sum(seq < acknowledged for _, _, seq in judged),
            }
        else:
            break
        say(**answer, cpu=time.process_time())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    uvloop.run(main(parser.parse_args()))
