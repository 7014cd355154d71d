"""Run the session load: each client sends in its own session, waits for the ack, sends again.

No message needs JSON: the frame is built once, and received data is searched for the first bytes
of an ack and of a message.
"""

import argparse
import asyncio
import gc
import json
import sys
import time

import uvloop

from benchmarks.client_pool import ClientPool, PoolClient, masked
from benchmarks.lines import commands, reply
from benchmarks.timed_load import percentile_ms

# Both have the same length, so one tail serves both. An ack with an error matches neither: its
# client waits until the timeout.
_ACK = b'43/session,10[{"ok":true'
_MESSAGE = b'42/session,["message",{"'
# For acks that are outstanding when the time is over.
_GRACE_SECONDS = 10.0
_DRAIN_SECONDS = 2.0


class Sender(PoolClient):
    """Sends one message at a time."""

    __slots__ = ("_frame", "_load", "_sent_ns", "is_waiting")

    def __init__(self, load: "TalkLoad", session_id: str, text_bytes: int) -> None:
        super().__init__(load, "join", {"session_id": session_id})
        self._load = load
        request = {"session_id": session_id, "data": {"text": "x" * text_bytes}}
        body = json.dumps(["send", request], separators=(",", ":"))
        # All sends may share one ack id, because only one is outstanding.
        self._frame = masked(f"42/session,10{body}".encode())
        self._sent_ns = 0
        self.is_waiting = False

    def send_next(self) -> None:
        self.is_waiting = True
        self._sent_ns = time.monotonic_ns()
        self.transport.write(self._frame)

    def consume(self, data: bytes) -> bytes:
        load = self._load
        load.received += data.count(_MESSAGE)
        if _ACK in data:
            now = time.monotonic_ns()
            load.ages.append(now - self._sent_ns)
            if now < load.until_ns:
                self._sent_ns = now
                self.transport.write(self._frame)
            else:
                self.is_waiting = False
                load.on_done()
        return data[1 - len(_ACK) :]


class TalkLoad(ClientPool):
    """Clients that each send in their own session."""

    def __init__(self, port: int, token: str, text_bytes: int) -> None:
        super().__init__(port, token, namespace="/session")
        self.ages: list[int] = []
        self.received = 0
        self.until_ns = 0
        self._text_bytes = text_bytes
        self._senders: list[Sender] = []
        self._active_count = 0
        self._finished = asyncio.Event()

    def new_client(self) -> Sender:
        speaker = Sender(self, f"s{len(self._senders)}", self._text_bytes)
        self._senders.append(speaker)
        return speaker

    def on_lost(self, client: PoolClient) -> None:
        super().on_lost(client)
        self._finished.set()

    def on_done(self) -> None:
        self._active_count -= 1
        if not self._active_count:
            self._finished.set()

    async def run(self, seconds: float) -> dict[str, object]:
        """Send for this long, wait for the last acks, and count the received messages."""
        self.ages, self.received = [], 0
        self._active_count = len(self._senders)
        self._finished.clear()
        cpu, began = time.process_time(), time.monotonic()
        self.until_ns = time.monotonic_ns() + int(seconds * 1e9)
        for speaker in self._senders:
            speaker.send_next()
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                await self._finished.wait()
        except TimeoutError:
            waiting = sum(speaker.is_waiting for speaker in self._senders)
            sys.exit(f"{waiting} clients got no ack or an error")
        elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
        # A message may come after its ack.
        drained = time.monotonic() + _DRAIN_SECONDS
        while self.received < len(self.ages) and time.monotonic() < drained:
            await asyncio.sleep(0.01)
        ages = sorted(self.ages)
        return {
            "seconds": elapsed,
            "cpu": cpu,
            "acks": len(ages),
            "heard": self.received,
            "p50_ms": percentile_ms(ages, 0.5),
            "p99_ms": percentile_ms(ages, 0.99),
        }


async def main(arguments: argparse.Namespace) -> None:
    load = TalkLoad(arguments.port, arguments.token, arguments.text_bytes)
    async for command, *words in commands():
        if command == "open":
            await load.open(int(words[0]), int(words[1]))
            # A collection would pause the clients for milliseconds and look like server latency.
            gc.collect()
            gc.freeze()
            gc.disable()
            answer: dict[str, object] = {"joined": len(load.joined)}
        elif command == "talk":
            answer = await load.run(float(words[0]))
        else:
            break
        if load.lost:
            sys.exit(f"{load.lost} clients were lost")
        reply(**answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--text-bytes", type=int, required=True)
    uvloop.run(main(parser.parse_args()))
