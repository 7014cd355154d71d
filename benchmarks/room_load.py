"""Run the counting clients of one room, cheaply enough for a server that joins messages.

All clients of a room must receive the same bytes. The first one parses them and checks their order;
each other one compares, so it has the same messages in the same order. A client whose bytes differ
counts for itself. Sockets are read every NAP_SECONDS, without an event loop.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import time

import uvloop

from benchmarks.client_pool import PING, ClientPool, PoolClient, masked
from benchmarks.lines import commands, reply
from benchmarks.symbols import count_merged, count_stamps, moment_of, split_stamps, symbol
from benchmarks.timed_load import QUIET_SECONDS

# Short enough that no client falls behind at the highest rates.
NAP_SECONDS = 0.01
_READ_BYTES = 96 * 1024
# While nothing is measured, only pings have to be answered.
_IDLE_SECONDS = 0.5


class RoomStream:
    """What the first client of the room has received since `record`."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.count = self.merged = self.disordered = 0
        self._rest = b""
        self._last_moment = 0

    def append(self, data: bytes) -> None:
        """Parse data of the first client."""
        self.data += data
        pieces, self._rest = split_stamps(self._rest + data)
        self.count += len(pieces)
        self.merged += count_merged(data)
        for moment in map(moment_of, pieces):
            self.disordered += moment < self._last_moment
            self._last_moment = moment


class RoomClient(PoolClient):
    """Compares what it receives with the stream of its room."""

    __slots__ = ("_fd", "_load", "_pending", "_position", "is_following", "merged", "own_count")

    def __init__(self, load: "RoomLoad") -> None:
        super().__init__(load, "subscribe", {"topics": [f"PRICE:{symbol(0)}"]})
        self._load = load
        self._fd = -1
        self.restart()

    def restart(self) -> None:
        """Follow the stream from its beginning."""
        self._position = 0
        # Without pings: not yet compared because the stream ends before, or half a ping.
        self._pending = b""
        self.is_following = True
        self.own_count = self.merged = 0

    def take_over(self) -> None:
        """Read the socket without the event loop from now on."""
        if self._fd < 0:
            self.transport.pause_reading()
            self._fd = self.transport.get_extra_info("socket").fileno()

    @property
    def has_all(self) -> bool:
        """Whether it has received all of the stream."""
        return self._position == len(self._load.stream.data)

    def consume(self, data: bytes) -> bytes:
        """Count as a client whose bytes differ from those of the stream."""
        count, rest = count_stamps(data)
        self.own_count += count
        self.merged += count_merged(data)
        return rest

    def discard(self) -> None:
        """Drop what has arrived."""
        while data := self._received():
            self._pending = self._split(self._pending + data)[1]

    def lead(self) -> None:
        """Read as the first client, which all others follow."""
        while data := self._received():
            data, self._pending = self._split(self._pending + data)
            self._load.stream.append(data)

    def follow(self) -> None:
        """Read as one of the others."""
        stream = self._load.stream.data
        if self._pending:
            self._follow_slowly(*self._split(self._pending))
        while data := self._received():
            if not self.is_following:
                self.data_received(data)
                continue
            data = self._pending + data
            if stream.startswith(data, self._position):
                self._position += len(data)
                self._pending = b""
            else:
                self._follow_slowly(*self._split(data))

    def _follow_slowly(self, data: bytes, half_ping: bytes) -> None:
        """Compare data that had a ping in it, is newer than the stream, or differs from it."""
        stream = self._load.stream.data
        if len(stream) - self._position < len(data):
            self._load.lead()
        known = data[: len(stream) - self._position]
        if stream.startswith(known, self._position):
            self._position += len(known)
            self._pending = data[len(known) :] + half_ping
        else:
            self.is_following = False
            self.own_count = 0
            self._rest = self.consume(bytes(stream[: self._position]) + data) + half_ping

    def _received(self) -> bytes:
        """What has arrived; empty if nothing has."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            sys.exit("the server closed a connection")
        return data

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Answer the pings in data; what is without them, and half a ping at the end."""
        for _ in range(data.count(PING)):
            self.transport.write(masked(b"3"))
        data = data.replace(PING, b"")
        length = next((size for size in (2, 1) if data.endswith(PING[:size])), 0)
        return data[: len(data) - length], data[len(data) - length :]


class RoomLoad(ClientPool):
    """The clients of one room."""

    def __init__(self, port: int, token: str, count: int) -> None:
        super().__init__(port, token)
        self.stream = RoomStream()
        self._count = count
        self._clients: list[RoomClient] = []
        self._is_measuring = False

    def new_client(self) -> RoomClient:
        client = RoomClient(self)
        self._clients.append(client)
        return client

    def on_lost(self, client: PoolClient) -> None:
        sys.exit("a client was lost")

    async def connect(self, at_once: int) -> None:
        """Connect all clients."""
        await self.open(self._count, at_once)
        for client in self._clients:
            client.take_over()
        gc.collect()
        gc.freeze()
        gc.disable()
        # The timed process has priority.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 19)
        self._scan()

    def _scan(self) -> None:
        """Read all sockets, again and again."""
        loop = asyncio.get_running_loop()
        if self._is_measuring:
            time.sleep(NAP_SECONDS)
            loop.call_soon(self._scan)
        else:
            loop.call_later(_IDLE_SECONDS, self._scan)
        self.lead()
        for client in self._clients[1:]:
            client.follow()

    def lead(self) -> None:
        """Read the first client, if others have newer data."""
        self._clients[0].lead()

    def record(self) -> None:
        """Restart the measurement: what has arrived until now does not count."""
        for client in self._clients:
            client.discard()
            client.restart()
        self.stream = RoomStream()
        self._is_measuring = True

    def counts(self) -> list[int]:
        """How many messages each client has, merged ones included; -1 for those in between."""
        stream = self.stream
        followed = stream.count + stream.merged
        return [followed] + [
            (followed if client.has_all else -1)
            if client.is_following
            else client.own_count + client.merged
            for client in self._clients[1:]
        ]

    async def drain(self, published: int, seconds: float) -> float:
        """Wait up to `seconds` for all messages, or until no more come; the time of the last."""
        now = last = time.monotonic()
        until, seen = now + seconds, 0
        while now < min(until, last + QUIET_SECONDS):
            counts = self.counts()
            if sum(counts) != seen:
                seen, last = sum(counts), now
            if all(count == published for count in counts):
                break
            await asyncio.sleep(NAP_SECONDS / 2)
            now = time.monotonic()
        self._is_measuring = False
        return last

    def figures(self, published: int) -> dict[str, object]:
        """The figures since `record`."""
        counts = self.counts()
        merged = sum(
            self.stream.merged if each.is_following else each.merged for each in self._clients
        )
        return {
            "cpu": time.process_time(),
            "received": max(0, sum(max(0, count) for count in counts) - merged),
            "merged": merged,
            "disordered": self.stream.disordered,
            "lost": 0,
            "wrong": sum(count != published for count in counts),
        }


async def main(arguments: argparse.Namespace) -> None:
    load = RoomLoad(arguments.port, arguments.token, arguments.clients)
    async for command, *words in commands():
        answer: dict[str, object] = {}
        if command == "open":
            await load.connect(int(words[0]))
        elif command == "record":
            load.record()
            answer = {"cpu": time.process_time()}
        elif command == "drain":
            last = await load.drain(int(words[0]), float(words[1]))
            answer = {**load.figures(int(words[0])), "at": last}
        else:
            break
        reply(**answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--clients", type=int, required=True)
    uvloop.run(main(parser.parse_args()))
