"""The load of latency: clients that say how old messages are when they come, and can stop reading.

When a message came is asked of the kernel, which noted it: a process with a thousand clients reads
the last of them long after the first, and would measure itself. Two processes make one audience:
one for the clients that are timed or may stop, and with --counting one for all others. Moments are
CLOCK_MONOTONIC, which all processes of a machine share.
"""

import argparse
import asyncio
import gc
import os
import re
import socket
import struct
import sys
import time

import uvloop

from benchmarks.crowd import ClientPool, PoolClient
from benchmarks.lines import commands, reply
from benchmarks.symbols import (
    assign_symbols,
    count_stamps,
    index_of,
    moment_of,
    split_stamps,
    symbol,
)

# A server that says nothing for so long has nothing more to say.
QUIET_SECONDS = 2.0
# What comes later than this is not fresh, and is not waited for.
FRESH_SECONDS = 1.0
# Only where nothing is timed; a message a read would cost more than the messages did.
NAP_SECONDS = 0.02
# What a server left out for a client that reads slowly, said in the message that replaces it. One
# that is split between two reads is missed; who is behind by that much is sent many at once.
_MERGED = re.compile(rb'"merged":(\d+)')
_NEVER = 1 << 62
# From <asm-generic/socket.h>, for the socket module does not know it.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_READ_BYTES, _ANCILLARY_BYTES = 32 * 1024, 64


class TimedClient(PoolClient):
    """Counts updates; one that is timed also notes how old each is."""

    __slots__ = (
        "_arrived_ns",
        "_load",
        "_socket",
        "_symbols",
        "is_closed",
        "is_timed",
        "newest",
        "youngest",
    )

    def __init__(self, load: "TimedLoad", symbols: list[int], *, is_timed: bool) -> None:
        super().__init__(
            load, "subscribe", {"topics": [f"PRICE:{symbol(index)}" for index in symbols]}
        )
        self._load = load
        self._symbols = symbols
        self.is_timed = is_timed
        self.is_closed = False
        self._socket: socket.socket | None = None
        self._arrived_ns = 0
        # Of each symbol, once the client reads again: the newest message's moment, and how old
        # the youngest was when it came.
        self.newest: dict[int, int] = {}
        self.youngest: dict[int, int] = {}

    def consume(self, data: bytes) -> bytes:
        load = self._load
        if self.is_timed:
            pieces, rest = split_stamps(data)
            arrived = self._arrived_ns
            load.ages += [arrived - moment_of(piece) for piece in pieces]
            count = len(pieces)
        elif self.youngest:
            pieces, rest = split_stamps(data)
            self._record_freshness(pieces)
            count = len(pieces)
        else:
            count, rest = count_stamps(data)
        load.received += count
        if b'"merged":' in data:
            load.merged += sum(int(found) - 1 for found in _MERGED.findall(data))
        return rest

    def start_timing(self) -> None:
        """Read by ourselves from now on: a transport does not tell when its bytes arrived."""
        self.transport.pause_reading()
        # A loop lets nobody else read what belongs to a transport.
        own = self._socket = socket.socket(
            fileno=os.dup(self.transport.get_extra_info("socket").fileno())
        )
        own.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        asyncio.get_running_loop().add_reader(own, self._readable)

    def _readable(self) -> None:
        own = self._socket
        assert own is not None
        try:
            data, ancillary, _, _ = own.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            asyncio.get_running_loop().remove_reader(own)
            own.close()
            self.transport.abort()
            return
        # Of several segments in one read it is the last one's: no age is too low.
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
        self._arrived_ns = seconds * 10**9 + nanoseconds - self._load.clock_offset_ns
        self.data_received(data)

    def pause(self) -> None:
        """Read nothing, as a phone in a tunnel."""
        # Nothing that it has is younger than this.
        self.newest = dict.fromkeys(self._symbols, time.monotonic_ns())
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Come back, and note how fresh each symbol is."""
        self.youngest = dict.fromkeys(self._symbols, _NEVER)
        # uvloop raises where the transport has been closed, until it says that it is lost.
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _record_freshness(self, pieces: list[bytes]) -> None:
        # A server says things in order: what stands last for a symbol is the newest. A hundred
        # clients come back with a megabyte each, and are not to wait for us.
        missing = set(self._symbols)
        now = time.monotonic_ns()
        for piece in reversed(pieces):
            index = index_of(piece)
            if index in missing:
                missing.remove(index)
                self.newest[index] = moment = moment_of(piece)
                self.youngest[index] = min(self.youngest[index], now - moment)
                if not missing:
                    return


class TimedLoad(ClientPool):
    """Clients with symbols of their own, every so manieth of which is timed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments.port, arguments.token, far=arguments.far)
        self.ages: list[int] = []
        self.received = 0
        self.merged = 0
        # The kernel's clock is that of the day.
        self.clock_offset_ns = time.time_ns() - time.monotonic_ns()
        self._is_counting: bool = arguments.counting
        self._subscribers = [0] * arguments.symbols
        self._clients: list[TimedClient] = []
        self._paused: list[TimedClient] = []
        every: int = arguments.timed_every
        # In each group the first may stop reading, and the one in the middle is timed.
        self._assignments = [
            (hand, index % every == every // 2)
            for index, hand in enumerate(
                assign_symbols(arguments.clients, arguments.each, arguments.symbols)
            )
            if (index % every in (0, every // 2)) is not self._is_counting
        ]

    def new_client(self) -> TimedClient:
        hand, timed = self._assignments[len(self._clients)]
        for index in hand:
            self._subscribers[index] += 1
        listener = TimedClient(self, hand, is_timed=timed)
        self._clients.append(listener)
        return listener

    def on_lost(self, client: PoolClient) -> None:
        super().on_lost(client)
        assert isinstance(client, TimedClient)
        client.is_closed = True

    async def connect_all(self, at_once: int) -> None:
        """Let all clients of this process in."""
        await self.open(len(self._assignments), at_once)
        if self.lost:
            sys.exit(f"{self.lost} clients were lost")
        for listener in self._clients:
            if listener.is_timed:
                listener.start_timing()
        # The collector would stop the clients for milliseconds, and look like the server.
        gc.collect()
        gc.freeze()
        gc.disable()
        if self._is_counting:
            # Whoever is timed comes first.
            os.nice(19)
            self._nap()

    def _nap(self) -> None:
        time.sleep(NAP_SECONDS)
        asyncio.get_running_loop().call_soon(self._nap)

    def record(self) -> None:
        """Forget what came until now."""
        self.ages = []
        self.received = self.merged = 0
        # Somebody may have set that clock meanwhile.
        self.clock_offset_ns = time.time_ns() - time.monotonic_ns()

    def due(self, published: int) -> int:
        """How many deliveries so many messages make, one symbol after the other."""
        cycles, rest = divmod(published, len(self._subscribers))
        return cycles * sum(self._subscribers) + sum(self._subscribers[:rest])

    async def drain(self, due: int, seconds: float) -> float:
        """Wait until so many deliveries have come, or no more do, for at most so long."""
        now = last = time.monotonic()
        until, seen = now + seconds, self.received
        while self.received + self.merged < due and now < min(until, last + QUIET_SECONDS):
            await asyncio.sleep(0.01)
            now = time.monotonic()
            if self.received != seen:
                seen, last = self.received, now
        return last

    def figures(self) -> dict[str, object]:
        """What came since `record`."""
        cpu, ages = time.process_time(), sorted(self.ages)
        timed = sum(listener.is_timed for listener in self._clients)
        return {
            "cpu": cpu,
            "at": time.monotonic(),
            "came": self.received,
            "merged": self.merged,
            "lost": self.lost,
            "timed": timed,
            "ages": len(ages),
            "p50_ms": percentile_ms(ages, 0.5),
            "p99_ms": percentile_ms(ages, 0.99),
            "max_ms": percentile_ms(ages, 1.0),
        }

    def pause(self, count: int) -> None:
        """So many clients read nothing from now on, the first of each group."""
        self._paused = [each for each in self._clients if not each.is_timed][:count]
        for listener in self._paused:
            listener.pause()

    async def resume(self) -> dict[str, object]:
        """They read again; say how fresh all their symbols are when the time is over."""
        for listener in self._paused:
            listener.resume()
        await asyncio.sleep(FRESH_SECONDS)
        now = time.monotonic_ns()
        limit = FRESH_SECONDS * 1e9
        there = [listener for listener in self._paused if not listener.is_closed]
        fresh = sum(max(listener.youngest.values()) <= limit for listener in there)
        oldest = min(min(listener.newest.values()) for listener in self._paused)
        return {
            "stopped": len(self._paused),
            "gone": len(self._paused) - len(there),
            "fresh": fresh,
            "worst_age_ms": (now - oldest) / 1e6,
        }


def percentile_ms(ordered: list[int], share: float) -> float | None:
    """A percentile of nanoseconds, in milliseconds."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6


async def main(arguments: argparse.Namespace) -> None:
    load = TimedLoad(arguments)
    async for command, *words in commands():
        if command == "open":
            await load.connect_all(int(words[0]))
            answer: dict[str, object] = {"joined": len(load.joined)}
        elif command == "record":
            load.record()
            answer = {"cpu": time.process_time()}
        elif command == "drain":
            due = load.due(int(words[0]))
            last = await load.drain(due, float(words[1]))
            answer = {**load.figures(), "at": last}
        elif command == "figures":
            answer = load.figures()
        elif command == "stop":
            load.pause(int(words[0]))
            answer = {}
        elif command == "read_again":
            answer = await load.resume()
        else:
            break
        reply(**answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--each", type=int, required=True, help="symbols of each client")
    parser.add_argument("--symbols", type=int, required=True, help="symbols in all")
    parser.add_argument("--timed-every", type=int, required=True)
    parser.add_argument("--far", action="store_true")
    parser.add_argument("--counting", action="store_true")
    uvloop.run(main(parser.parse_args()))
