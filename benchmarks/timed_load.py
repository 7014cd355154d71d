"""Run the latency load: clients that measure message ages and can stop reading.

Arrival times are the kernel's: a process with a thousand clients reads the last one long after the
first, and would measure itself. Two processes make one audience: one for the clients that are timed
or may stop, and with --counting one for all others. Times are CLOCK_MONOTONIC, which all processes
of a machine share.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import socket
import struct
import sys
import time

import uvloop

from benchmarks.client_pool import ClientPool, PoolClient
from benchmarks.lines import commands, reply
from benchmarks.symbols import (
    assign_symbols,
    count_merged,
    count_stamps,
    index_of,
    moment_of,
    split_stamps,
    symbol,
)

# A server that is silent for this long has sent everything.
QUIET_SECONDS = 2.0
# Later updates are not fresh, and are not waited for.
FRESH_SECONDS = 1.0
# Only in the counting process: one read per message would cost more than the messages.
NAP_SECONDS = 0.02
# Of timed clients that are polled.
_POLL_SECONDS = 0.0005
_NEVER = 1 << 62
# From <asm-generic/socket.h>; the socket module does not define it.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_READ_BYTES, _ANCILLARY_BYTES = 32 * 1024, 64


class Stamps:
    """The stamps in received data, parsed."""

    def __init__(self, data: bytes) -> None:
        pieces, self.rest = split_stamps(data)
        self.moments = list(map(moment_of, pieces))
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._disordered = 0
        for index, moment in zip(map(index_of, pieces), self.moments, strict=True):
            self._disordered += moment < self._last.get(index, 0)
            self._first.setdefault(index, moment)
            self._last[index] = moment

    def disordered_after(self, last: dict[int, int]) -> int:
        """How many are older than the one before of their symbol; updates the last of each."""
        count = self._disordered
        for index, moment in self._first.items():
            count += moment < last.get(index, 0)
        last.update(self._last)
        return count


class TimedClient(PoolClient):
    """Counts updates; a timed client also records the age of each."""

    __slots__ = (
        "_arrived_ns",
        "_last_moments",
        "_load",
        "_socket",
        "_symbols",
        "is_closed",
        "is_timed",
        "merged",
        "newest",
        "received",
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
        # Of this client since `record`, and the due time of the newest update of each symbol.
        self.received = self.merged = 0
        self._last_moments: dict[int, int] = {}
        # By symbol, once the client reads again: the publish time of the newest update, and the
        # lowest age of an update on arrival.
        self.newest: dict[int, int] = {}
        self.youngest: dict[int, int] = {}

    def consume(self, data: bytes) -> bytes:
        load = self._load
        if self.is_timed:
            stamps = load.parse(data)
            arrived, rest = self._arrived_ns, stamps.rest
            load.ages += [arrived - moment for moment in stamps.moments]
            load.disordered += stamps.disordered_after(self._last_moments)
            count = len(stamps.moments)
        elif self.youngest:
            pieces, rest = split_stamps(data)
            self._record_freshness(pieces)
            count = len(pieces)
        else:
            count, rest = count_stamps(data)
        self.received += count
        load.received += count
        if merged := count_merged(data):
            self.merged += merged
            load.merged += merged
        return rest

    def due(self, published: int) -> int:
        """How many of this many messages, published to the symbols in turn, are for this client."""
        cycles, rest = divmod(published, self._load.symbol_count)
        return cycles * len(self._symbols) + sum(index < rest for index in self._symbols)

    def restart(self) -> None:
        """Count from here on."""
        self.received = self.merged = 0
        self._last_moments.clear()

    def start_timing(self, *, polled: bool) -> None:
        """Read the socket directly from now on: a transport does not report arrival times."""
        self.transport.pause_reading()
        # The loop forbids a reader on a transport's own file descriptor.
        own = self._socket = socket.socket(
            fileno=os.dup(self.transport.get_extra_info("socket").fileno())
        )
        own.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if not polled:
            asyncio.get_running_loop().add_reader(own, self.read)

    def read(self) -> None:
        """Read a timed client's socket."""
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
        self._arrived_ns = self._arrival_ns(ancillary)
        self.data_received(data)

    def _arrival_ns(self, ancillary: list[tuple[int, int, bytes]]) -> int:
        """When the last segment of a read arrived: no age is too low."""
        if not ancillary:
            # The kernel merged segments of a full buffer, and their times were lost.
            return time.monotonic_ns()
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
        return int(seconds * 10**9 + nanoseconds - self._load.clock_offset_ns)

    def pause(self) -> None:
        """Stop reading, as a phone in a tunnel does."""
        # None of its data is newer than this.
        self.newest = dict.fromkeys(self._symbols, time.monotonic_ns())
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again, and record how fresh each symbol is."""
        self.youngest = dict.fromkeys(self._symbols, _NEVER)
        # uvloop raises between the close of a transport and connection_lost.
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _record_freshness(self, pieces: list[bytes]) -> None:
        # Updates are ordered: the last one of a symbol is the newest. Search backwards, because a
        # hundred clients resume with a megabyte each.
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
    """Clients with assigned symbols, some of which are timed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments.port, arguments.token, far=arguments.far)
        self.ages: list[int] = []
        self.received = 0
        self.merged = 0
        self.disordered = 0
        self.symbol_count: int = arguments.symbols
        # The kernel stamps with the wall clock.
        self.clock_offset_ns = time.time_ns() - time.monotonic_ns()
        self._is_counting: bool = arguments.counting
        self._is_polling: bool = arguments.polled
        self._naps = False
        self._parsed = b"", Stamps(b"")
        self._subscribers = [0] * arguments.symbols
        self._clients: list[TimedClient] = []
        self._paused: list[TimedClient] = []
        every: int = arguments.timed_every
        # In each group the middle client is timed, and the first one may stop reading; but not in
        # the room of `benchmarks.room_load`, which has all that are not timed.
        own = (every // 2,) if self._is_polling else (0, every // 2)
        self._assignments = [
            (hand, index % every == every // 2)
            for index, hand in enumerate(
                assign_symbols(arguments.clients, arguments.each, arguments.symbols)
            )
            if (index % every in own) is not self._is_counting
        ]

    def new_client(self) -> TimedClient:
        hand, timed = self._assignments[len(self._clients)]
        for index in hand:
            self._subscribers[index] += 1
        listener = TimedClient(self, hand, is_timed=timed)
        self._clients.append(listener)
        return listener

    def parse(self, data: bytes) -> Stamps:
        """The stamps in data; often those of the client before, which received the same."""
        if data != self._parsed[0]:
            self._parsed = data, Stamps(data)
        return self._parsed[1]

    def on_lost(self, client: PoolClient) -> None:
        super().on_lost(client)
        assert isinstance(client, TimedClient)
        client.is_closed = True

    async def connect(self, at_once: int, count: int | None = None) -> None:
        """Connect all clients of this process, or this many more of them."""
        before = len(self._clients)
        left = len(self._assignments) - before
        self._nap_often(False)
        await self.open(left if count is None else min(count, left), at_once)
        if self.lost:
            sys.exit(f"{self.lost} clients were lost")
        for listener in self._clients[before:]:
            if listener.is_timed:
                listener.start_timing(polled=self._is_polling)
        # A collection would pause the clients for milliseconds and look like server latency.
        gc.collect()
        gc.freeze()
        gc.disable()
        if self._is_counting:
            self._nap_often(True)
        if self._is_polling:
            self._poll()

    def _poll(self) -> None:
        """Read all timed clients, again and again; no write of the server has to wake this one."""
        for client in self._clients:
            client.read()
        time.sleep(_POLL_SECONDS)
        asyncio.get_running_loop().call_soon(self._poll)

    def _nap_often(self, naps: bool) -> None:
        self._naps = naps
        # The timed process has priority. Only root may take it back.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 19 if naps else 0)
        if naps:
            self._nap()

    def _nap(self) -> None:
        if self._naps:
            time.sleep(NAP_SECONDS)
            asyncio.get_running_loop().call_soon(self._nap)

    def record(self) -> None:
        """Restart the measurement."""
        self.ages = []
        self.received = self.merged = self.disordered = 0
        for client in self._clients:
            client.restart()
        # The wall clock may have been set.
        self.clock_offset_ns = time.time_ns() - time.monotonic_ns()

    def due(self, published: int) -> int:
        """The number of deliveries of this many messages, published to the symbols in turn."""
        cycles, rest = divmod(published, len(self._subscribers))
        return cycles * sum(self._subscribers) + sum(self._subscribers[:rest])

    async def drain(self, due: int, seconds: float) -> float:
        """Wait up to `seconds` for the due deliveries; return the time of the last one."""
        now = last = time.monotonic()
        until, seen = now + seconds, self.received
        while self.received + self.merged < due and now < min(until, last + QUIET_SECONDS):
            await asyncio.sleep(0.01)
            now = time.monotonic()
            if self.received != seen:
                seen, last = self.received, now
        return last

    def wrong(self, published: int) -> int:
        """The number of clients that received too few or too many of the published messages."""
        return sum(
            client.received + client.merged != client.due(published) for client in self._clients
        )

    def figures(self) -> dict[str, object]:
        """The figures since `record`."""
        cpu, ages = time.process_time(), sorted(self.ages)
        timed = sum(listener.is_timed for listener in self._clients)
        return {
            "cpu": cpu,
            "at": time.monotonic(),
            "received": self.received,
            "merged": self.merged,
            "disordered": self.disordered,
            "lost": self.lost,
            "timed": timed,
            "ages": len(ages),
            "p50_ms": percentile_ms(ages, 0.5),
            "p99_ms": percentile_ms(ages, 0.99),
            "max_ms": percentile_ms(ages, 1.0),
        }

    def pause(self, count: int) -> None:
        """Stop reading in this many clients, the first of each group."""
        self._paused = [each for each in self._clients if not each.is_timed][:count]
        for listener in self._paused:
            listener.pause()

    async def resume(self) -> dict[str, object]:
        """Read again; return how fresh the symbols are after FRESH_SECONDS."""
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
    """A percentile of sorted nanoseconds, in milliseconds; None without values."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6


async def main(arguments: argparse.Namespace) -> None:
    load = TimedLoad(arguments)
    async for command, *words in commands():
        if command == "open":
            await load.connect(*map(int, words))
            answer: dict[str, object] = {"joined": len(load.joined)}
        elif command == "record":
            load.record()
            answer = {"cpu": time.process_time()}
        elif command == "drain":
            published = int(words[0])
            last = await load.drain(load.due(published), float(words[1]))
            answer = {**load.figures(), "at": last, "wrong": load.wrong(published)}
        elif command == "figures":
            answer = {**load.figures(), "wrong": 0}
        elif command == "stop":
            load.pause(int(words[0]))
            answer = {}
        elif command == "resume":
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
    parser.add_argument("--polled", action="store_true")
    uvloop.run(main(parser.parse_args()))
