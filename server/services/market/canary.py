"""Subscribes to a few real topics like a client, and checks all that the hub sends it."""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import orjson

from client_sdk.contract import INTERVALS_MS, Stream
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.market.stream_check import Fault, StreamCheck
from server.core.market.topics import Topic
from server.core.wire.frames import split_text_frames
from server.delivery import Hub
from server.ports import Clock
from server.services.market.past import Past
from server.services.market.replies import subscribe_reply
from server.services.market.topic_shares import TopicShares
from server.services.market.topic_subscriptions import TopicSubscriptions
from server.tasks import TaskOwner, cancel_and_wait

logger = logging.getLogger(__name__)

_CONNECTION_ID = "(canary)"
_FAULTS = {
    Fault.GAP: "canary.gaps",
    Fault.DUPLICATE: "canary.duplicates",
    Fault.REORDER: "canary.reorders",
    Fault.CHECKSUM: "canary.checksum_errors",
}
# A round watches other topics than the one before it.
_ROUND_SECONDS = 10.0
_CHECK_SECONDS = 0.2
# The loop serves the clients between two checks of this length.
_MAX_TURN_SECONDS = 0.001
# Of one core. A round ends early if the topics are busier than that.
_MAX_SHARE = 0.005
# What waits to be checked; a round ends early if it is more.
_MAX_BUFFERED_BYTES = 256 * 1024
_MAX_SNAPSHOT_BYTES = 128 * 1024
_MAX_CANDIDATES = 1_000


class CanaryLink:
    """Implements `Link`: keeps what is written, with the time, until it is taken."""

    accepts_plain = True
    clogged = False
    deflates = False
    buffered_bytes = 0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._written: list[tuple[float, bytes]] = []
        self.taken_bytes = 0
        self.is_full = False

    def write(self, frames: bytes) -> None:
        """Keep frames, unless it is full."""
        if not self.is_full:
            self._written.append((self._clock.time(), frames))
            self.taken_bytes += len(frames)
            self.is_full = self.taken_bytes > _MAX_BUFFERED_BYTES

    def hold(self, frames: bytes) -> None:
        """Keep frames now: nothing waits for a slice here."""
        self.write(frames)

    def release(self) -> None:
        """No-op: nothing is held."""

    def take(self) -> list[tuple[float, bytes]]:
        """What was written since the last call."""
        taken, self._written = self._written, []
        if not self.is_full:
            self.taken_bytes = 0
        return taken

    def when_writable(self, callback: Callable[[], object]) -> None:
        """Call back never: it is always writable."""

    def abort(self, reason: str) -> None:
        """End the round."""
        self.is_full = True

    def disconnect(
        self, error: FloorcastError, *, reconnect: bool, namespace: str | None = None
    ) -> None:
        """End the round."""
        self.is_full = True


@dataclass(frozen=True, slots=True)
class CanaryConfig:
    """How many topics it watches at once; 0 turns it off."""

    topics: int = 0


class Canary:
    """Watches a few topics at a time, at random intervals, for less than 1 % of a core.

    It prefers topics that clients of this node watch. What it finds is counted in `canary.*`, and
    the age of each message at the write in the histogram `canary.age`.
    """

    task_name = "floorcast-canary"

    def __init__(
        self,
        config: CanaryConfig,
        hub: Hub,
        topics: TopicSubscriptions,
        published: TopicShares,
        clock: Clock,
        counters: Counters,
        tasks: TaskOwner,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._hub = hub
        self._topics = topics
        self._published = published
        self._clock = clock
        self._counters = counters
        self._tasks = tasks
        self._ages = counters.histogram("canary.age")
        self._random = rng or random.Random()
        self._task: asyncio.Task[None] | None = None
        # The subscriptions of this round, by stream and symbol.
        self._checks: dict[tuple[str, str], StreamCheck] = {}
        # The CPU time that it may still use, and that it has used.
        self._budget_seconds = 0.0
        self.used_seconds = 0.0

    @property
    def is_on(self) -> bool:
        """Whether it watches topics in this process."""
        return self._config.topics > 0

    @property
    def topic_count(self) -> int:
        """How many topics it watches now."""
        return len(self._checks)

    def start(self) -> None:
        """Start to watch; a no-op if it is turned off."""
        if self.is_on:
            self._task = self._tasks.keep(self._run, self.task_name)

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self.watch(self._choose())
            except FloorcastError as error:
                # The broker is unavailable, for example.
                logger.debug("the canary cannot watch", extra={"why": error.message})
            await asyncio.sleep(_CHECK_SECONDS)

    def _choose(self) -> list[str]:
        channels = self._hub.channels()
        some = self._random.sample(channels, min(_MAX_CANDIDATES, len(channels)))
        candidates = [each.name for each in some if _is_public(each.name)]
        if not candidates:
            published = filter(_is_public, self._published)
            candidates = list(itertools.islice(published, _MAX_CANDIDATES))
        return self._random.sample(candidates, min(self._config.topics, len(candidates)))

    async def watch(self, names: Iterable[str]) -> None:
        """Watch these topics for one round; it ends early if they are too busy."""
        link = CanaryLink(self._clock)
        self._hub.attach(_CONNECTION_ID, link)
        try:
            for name in names:
                await self._subscribe(name)
            for _ in range(round(_ROUND_SECONDS / _CHECK_SECONDS)):
                await asyncio.sleep(_CHECK_SECONDS)
                self._budget_seconds = min(
                    self._budget_seconds + _CHECK_SECONDS * _MAX_SHARE, _ROUND_SECONDS * _MAX_SHARE
                )
                await self._check_all(link)
                if link.is_full or self._budget_seconds < 0:
                    self._counters.add("canary.cut_short")
                    break
        finally:
            self._checks.clear()
            async with AsyncExitStack() as closing:
                for name in self._hub.detach(_CONNECTION_ID):
                    closing.push_async_callback(self._topics.close, name)
        if self._budget_seconds < 0:
            await asyncio.sleep(-self._budget_seconds / _MAX_SHARE)
            self._budget_seconds = 0.0

    async def _subscribe(self, name: str) -> None:
        topic = Topic.parse(name)
        interval_ms = self._random.choice(INTERVALS_MS) if topic.stream.is_conflated else 0
        try:
            channel, _ = await self._topics.open(name, topic)
            self._hub.flush_channel(channel)
            granted_ms = self._hub.subscribe(_CONNECTION_ID, channel, interval_ms)
            reply = subscribe_reply(
                channel,
                granted_ms,
                past=Past(),
                missed=None,
                newest=None,
                known=True,
                max_bytes=_MAX_SNAPSHOT_BYTES,
            )
        finally:
            # A no-op once it is subscribed.
            await self._topics.close(name)
        # As a client reads it.
        body = orjson.loads(orjson.dumps(reply.body))
        check = StreamCheck(body, is_book=topic.stream is Stream.ORDERBOOK)
        self._checks[topic.stream.value, topic.symbol or ""] = check
        self._report(check.snapshot_fault, name, body["seq"])

    async def _check_all(self, link: CanaryLink) -> None:
        began = self._clock.monotonic()
        for written_at, frames in link.take():
            for payload in split_text_frames(frames):
                self._check(written_at, payload)
            now = self._clock.monotonic()
            if now - began > _MAX_TURN_SECONDS:
                self._use(now - began)
                await asyncio.sleep(0)
                began = self._clock.monotonic()
        self._use(self._clock.monotonic() - began)

    def _use(self, seconds: float) -> None:
        self._budget_seconds -= seconds
        self.used_seconds += seconds

    def _check(self, written_at: float, payload: bytes) -> None:
        # `42/market,["price",{...}]`
        event, message = orjson.loads(payload[payload.index(b"[") :])[:2]
        check = self._checks.get((message.get("stream"), message.get("symbol")))
        if check is None:
            return
        self._counters.add("canary.messages")
        if event != "status" and message["type"] != "heartbeat":
            self._ages.observe(written_at - message["ts"] / 1000)
        self._report(check.check(event, message), _name_of(message), message.get("seq"))

    def _report(self, fault: Fault | None, name: str, seq: int | None) -> None:
        if fault is not None:
            self._counters.add(_FAULTS[fault])
            logger.error("the canary found a %s", fault.value, extra={"topic": name, "seq": seq})


def _is_public(name: str) -> bool:
    try:
        return Topic.parse(name).symbol is not None
    except FloorcastError:
        return False


def _name_of(message: dict[str, Any]) -> str:
    return f"{message['stream']}:{message['symbol']}"
