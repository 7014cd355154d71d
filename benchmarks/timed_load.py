"""The load of latency: clients that say how old messages are when they come, and can stop reading.

Unlike the load of throughput it never naps. Moments are CLOCK_MONOTONIC, which all processes of a
machine share.
"""

import argparse
import asyncio
import gc
import re
import sys
import time

import uvloop

from benchmarks.crowd import Crowd, Member
from benchmarks.lines import commands, say
from benchmarks.symbols import count_stamps, deal, index_of, moment_of, stamps, symbol

# A server that says nothing for so long has nothing more to say.
QUIET_SECONDS = 2.0
# What comes later than this is not fresh, and is not waited for.
FRESH_SECONDS = 1.0
# What a server left out for a client that reads slowly, said in the message that replaces it. One
# that is split between two reads is missed; who is behind by that much is sent many at once.
_MERGED = re.compile(rb'"merged":(\d+)')
_NEVER = 1 << 62


class Listener(Member):
    """Counts updates; one that is timed also notes how old each is."""

    __slots__ = ("_load", "gone", "newest", "timed", "youngest")

    def __init__(self, load: "TimedLoad", hand: list[int], *, timed: bool) -> None:
        super().__init__(load, [f"PRICE:{symbol(index)}" for index in hand])
        self._load = load
        self.timed = timed
        self.gone = False
        # Of each symbol, once the client reads again: the newest message's moment, and how old
        # the youngest was when it came.
        self.newest: dict[int, int] = {}
        self.youngest: dict[int, int] = {}

    def take(self, data: bytes) -> bytes:
        load = self._load
        if self.timed:
            pieces, rest = stamps(data)
            now = time.monotonic_ns()
            load.ages += [now - moment_of(piece) for piece in pieces]
            count = len(pieces)
        elif self.youngest:
            pieces, rest = stamps(data)
            self._catch_up(pieces)
            count = len(pieces)
        else:
            count, rest = count_stamps(data)
        load.came += count
        if b'"merged":' in data:
            load.merged += sum(int(found) - 1 for found in _MERGED.findall(data))
        return rest

    def stop(self) -> None:
        """Read nothing, as a phone in a tunnel."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def read_again(self, hand: list[int]) -> None:
        """Come back, and note how fresh each symbol is."""
        self.newest = dict.fromkeys(hand, 0)
        self.youngest = dict.fromkeys(hand, _NEVER)
        # uvloop raises where the transport has been closed, until it says that it is lost.
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _catch_up(self, pieces: list[bytes]) -> None:
        now = time.monotonic_ns()
        for piece in pieces:
            index, moment = index_of(piece), moment_of(piece)
            self.newest[index] = max(self.newest[index], moment)
            self.youngest[index] = min(self.youngest[index], now - moment)


class TimedLoad(Crowd):
    """Clients with symbols of their own, every so manieth of which is timed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments.port, arguments.token, arguments.segment_bytes)
        self.ages: list[int] = []
        self.came = 0
        self.merged = 0
        self._timed_every = arguments.timed_every
        self._hands = deal(arguments.clients, arguments.each, arguments.symbols)
        self._subscribers = [0] * arguments.symbols
        self._listeners: list[Listener] = []
        self._stopped: list[int] = []

    def member(self, index: int) -> Listener:
        hand = self._hands[index]
        for number in hand:
            self._subscribers[number] += 1
        # In the middle of each group: its first is the one that stops reading.
        timed = index % self._timed_every == self._timed_every // 2
        listener = Listener(self, hand, timed=timed)
        self._listeners.append(listener)
        return listener

    def one_lost(self, member: Member) -> None:
        super().one_lost(member)
        assert isinstance(member, Listener)
        member.gone = True

    async def open(self, count: int, at_once: int) -> None:
        await super().open(count, at_once)
        if self.lost:
            sys.exit(f"{self.lost} clients were lost")
        # The collector would stop the clients for milliseconds, and look like the server.
        gc.collect()
        gc.freeze()
        gc.disable()

    def record(self) -> None:
        """Forget what came until now."""
        self.ages = []
        self.came = self.merged = 0

    def due(self, published: int) -> int:
        """How many deliveries so many messages make, one symbol after the other."""
        cycles, rest = divmod(published, len(self._subscribers))
        return cycles * sum(self._subscribers) + sum(self._subscribers[:rest])

    async def drain(self, due: int, seconds: float) -> float:
        """Wait until so many deliveries have come, or no more do, for at most so long."""
        now = last = time.monotonic()
        until, seen = now + seconds, self.came
        while self.came + self.merged < due and now < min(until, last + QUIET_SECONDS):
            await asyncio.sleep(0.01)
            now = time.monotonic()
            if self.came != seen:
                seen, last = self.came, now
        return last

    def figures(self) -> dict[str, object]:
        """What came since `record`."""
        cpu, ages = time.process_time(), sorted(self.ages)
        timed = sum(listener.timed for listener in self._listeners)
        return {
            "cpu": cpu,
            "came": self.came,
            "merged": self.merged,
            "lost": self.lost,
            "timed": timed,
            "ages": len(ages),
            "p50_ms": _at(ages, 0.5),
            "p99_ms": _at(ages, 0.99),
            "max_ms": _at(ages, 1.0),
        }

    def stop(self, count: int) -> None:
        """So many clients read nothing from now on, the first of each group."""
        self._stopped = list(range(0, len(self._listeners), len(self._listeners) // count))[:count]
        for index in self._stopped:
            self._listeners[index].stop()

    async def read_again(self) -> dict[str, object]:
        """They read again; say how fresh all their symbols are when the time is over."""
        for index in self._stopped:
            self._listeners[index].read_again(self._hands[index])
        await asyncio.sleep(FRESH_SECONDS)
        now = time.monotonic_ns()
        limit = FRESH_SECONDS * 1e9
        there = [
            listener
            for listener in map(self._listeners.__getitem__, self._stopped)
            if not listener.gone
        ]
        fresh = sum(max(listener.youngest.values()) <= limit for listener in there)
        # Of a symbol that nothing came for there is no age; such a client is not fresh.
        ages = [now - moment for listener in there for moment in listener.newest.values() if moment]
        return {
            "stopped": len(self._stopped),
            "gone": len(self._stopped) - len(there),
            "fresh": fresh,
            "worst_age_ms": max(ages) / 1e6 if ages else None,
        }


def _at(ordered: list[int], share: float) -> float | None:
    """A percentile, in milliseconds."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6


async def main(arguments: argparse.Namespace) -> None:
    load = TimedLoad(arguments)
    async for command, *words in commands():
        if command == "open":
            await load.open(int(words[0]), int(words[1]))
            answer: dict[str, object] = {"joined": len(load.members)}
        elif command == "record":
            load.record()
            answer = {"cpu": time.process_time()}
        elif command == "drain":
            due = load.due(int(words[0]))
            last = await load.drain(due, float(words[1]))
            answer = {"due": due, "at": last, **load.figures()}
        elif command == "figures":
            answer = load.figures()
        elif command == "stop":
            load.stop(int(words[0]))
            answer = {}
        elif command == "read_again":
            answer = await load.read_again()
        else:
            break
        say(**answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--each", type=int, required=True, help="symbols of each client")
    parser.add_argument("--symbols", type=int, required=True, help="symbols in all")
    parser.add_argument("--timed-every", type=int, required=True)
    parser.add_argument("--segment-bytes", type=int, default=0)
    uvloop.run(main(parser.parse_args()))
