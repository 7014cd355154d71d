"""A broker for many nodes: Redis gives the positions, keeps the entries, and tells who watches."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ssl import SSLCertVerificationError
from typing import Any, TypeVar

from redis.exceptions import AuthenticationError, ResponseError

from client_sdk.contract import ErrorCode
from server.brokers.errors import BrokerError
from server.brokers.failures import Failures
from server.brokers.redis.address import Address
from server.brokers.redis.codec import decode, tail
from server.brokers.redis.keys import Keys, claim_of, head_of, log_of
from server.brokers.redis.listener import Listener
from server.brokers.redis.pipeline import Pipeline, away
from server.brokers.redis.scripts import Bounds, Scripts
from server.brokers.redis.states import folded
from server.brokers.redis.watches import Reading, Watches
from server.brokers.redis.wire import BROKEN, Command, evaluate, open_wire
from server.core.counters import Counters
from server.core.entries import Entry, Position, Receipt, Reset
from server.core.errors import FloorcastError, LimitError, Moved, RequestError
from server.core.idempotency import Claim
from server.ports import Clock, unheard

T = TypeVar("T")

# Redis takes no longer expiry, and nobody wants one.
_LONGEST_MS = 10 * 365 * 86_400_000
# So many changes of a book are read and applied by whoever asks for it, before it is stored whole.
_UPDATES_A_WHOLE = 64
_READS_AT_ONCE = 64
_PROBE_SECONDS = 1.0
_DEAF_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Where Redis is, and how much it keeps for us."""

    address: Address
    prefix: str = "floorcast"
    timeout_seconds: float = 2.0
    max_waiting: int = 20_000
    entry_bytes: int = 4 * 1024 * 1024
    idle_seconds: float = 7 * 86_400
    lease_seconds: float = 8.0
    idempotency_seconds: float = 120.0
    history_messages: int = 1_000
    history_bytes: int = 1024 * 1024
    history_seconds: float = 300.0


class RedisBroker:
    """Fills the `Broker` port; the streams are the truth, and pub/sub says that there is more."""

    def __init__(self, clock: Clock, counters: Counters, config: RedisConfig) -> None:
        self._clock = clock
        self._counters = counters
        self._config = config
        self._node = secrets.token_hex(6)
        self._epochs = itertools.count(1)
        self._keys = Keys(config.prefix)
        self._age_ms = _milliseconds(config.history_seconds)
        self._scripts = Scripts.within(
            Bounds(
                messages=config.history_messages,
                bytes=config.history_bytes,
                age_ms=self._age_ms,
                claim_ms=_milliseconds(config.idempotency_seconds),
                idle_ms=_milliseconds(config.idle_seconds),
            )
        )
        wire = open_wire(
            config.address,
            self._scripts,
            timeout_seconds=config.timeout_seconds,
            name=f"{config.prefix}-{self._node}",
        )
        self._pipeline = Pipeline(
            wire,
            name="floorcast-broker-pipeline",
            timeout_seconds=config.timeout_seconds,
            max_waiting=config.max_waiting,
            on_change=self._look_around,
        )
        self._own = self._keys.node(self._node)
        self._listener = Listener(
            wire,
            self._own,
            timeout_seconds=config.timeout_seconds,
            wanted=self._wanted,
            on_message=self._hear,
            on_subscribed=self._doubt,
            on_change=self._look_around,
        )
        self._watches = Watches(unheard, unheard, counters.add)
        self._spoken: dict[bytes, str] = {}
        # How many changes of each book stand in the log since it was stored whole, as far as known.
        self._unstored: dict[str, int] = {}
        self._on_state: Callable[[bool], None] = unheard
        self._overhearers: list[tuple[Callable[[str, bytes], bool], Callable[[], None]]] = []
        self._up = False
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = Failures()

    # --- its life

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = unheard,
        on_state: Callable[[bool], None] = unheard,
    ) -> None:
        self._watches = Watches(self._careful(deliver), self._careful(on_reset), self._counters.add)
        self._on_state = on_state
        try:
            await self._pipeline.start()
            await self._listener.start()
        except (*BROKEN, TimeoutError) as error:
            await self.stop()
            raise BrokerError(_reason(error)) from None
        create_task = asyncio.create_task
        self._tasks = [
            create_task(self._keep_reading(), name="floorcast-broker-reader"),
            create_task(self._keep_probing(), name="floorcast-broker-probe"),
        ]
        self._look_around()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        await self._listener.stop()
        await self._pipeline.stop()
        self._spoken.clear()
        self._on_state = unheard

    def overhear(self, on_said: Callable[[str, bytes], bool], on_up: Callable[[], None]) -> None:
        """Hear what is told to watched channels and is no entry; `on_said` says whether it knows.

        `on_up` is called whenever something may have been missed, once that is over.
        """
        self._overhearers.append((on_said, on_up))

    async def run(self, command: Command) -> Any:
        """Run one command for somebody else, in a batch with ours."""
        return await self._pipeline.run(command)

    # --- publishing

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        spoken = self._keys.spoken(channel)
        known = await self._pipeline.run((b"GET", claim_of(spoken, claim.key)))
        return None if known is None else _claimed(known, claim)

    async def publish(
        self,
        channel: str,
        data: bytes,
        ts_ms: int,
        *,
        kind: str = "update",
        claim: Claim | None = None,
        whole: Callable[[], bytes] | None = None,
        kept: bool = False,
        expect: Position | None = None,
    ) -> Receipt:
        spoken = self._keys.spoken(channel)
        keys = [head_of(spoken), log_of(spoken)]
        if claim is not None:
            keys.append(claim_of(spoken, claim.key))
        said = tail(data, ts_ms, kind)
        stored = b""
        if whole is not None and kind == "snapshot":
            stored = said
        elif (
            whole is not None and self._unstored.get(channel, _UPDATES_A_WHOLE) >= _UPDATES_A_WHOLE
        ):
            # Others that publish at the same time send it too: once more than needed, at most.
            stored = tail(whole(), ts_ms, "snapshot")
        if max(len(said), len(stored)) + 256 > self._config.entry_bytes:
            raise LimitError(ErrorCode.LIMIT_PAYLOAD, "the broker takes no entry of this size")
        outcome, *told = await self._pipeline.run(
            evaluate(
                self._scripts.publish,
                keys,
                self._new_epoch(),
                said,
                spoken,
                b"book" if whole is not None else b"kept" if kept else b"last",
                ts_ms,
                b"" if expect is None else b"%b %d" % (expect.epoch.encode(), expect.seq),
                stored,
                b"" if claim is None else claim.digest.hex().encode(),
            )
        )
        if outcome == 1:
            assert claim is not None
            return _claimed(told[0], claim)
        position = Position(told[0].decode(), told[1])
        if outcome == 2:
            self._unstored.pop(channel, None)
            raise Moved
        if whole is not None:
            self._unstored[channel] = told[2]
        return Receipt(position, ts_ms)

    # --- reading

    async def head(self, channel: str) -> Position:
        return (await self._read(channel, None, state=False)).head

    async def latest(self, channel: str) -> Entry | None:
        return (await self._read(channel, None, state=True)).latest

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        reading = await self._read(channel, position, state=False)
        if reading.missed is None or reading.head.epoch != position.epoch:
            return None
        await self._within_time(self._watches.reaches(channel, reading.head))
        return list(reading.missed)

    async def before(self, channel: str, seq: int | None, limit: int) -> list[Entry]:
        if limit < 1 or (seq is not None and seq <= 1):
            return []
        log = log_of(self._keys.spoken(channel))
        end = b"+" if seq is None else b"(%d-0" % seq
        found = await self._pipeline.run(evaluate(self._scripts.before, [log], end, limit))
        entries = self._decode_all(channel, reversed(found))
        oldest = self._oldest_ms()
        fresh = [each for each in entries if each.ts_ms > oldest]
        # The newest of all stays, however old it is.
        return fresh or (entries[-1:] if seq is None else [])

    async def forget(self, channel: str) -> None:
        # A shard knows only those who listen through it.
        if channel in self._watches:
            return
        spoken = self._keys.spoken(channel)
        keys = [head_of(spoken), log_of(spoken)]
        # Where Redis is away, the channel's idle time lets it go all the same.
        with contextlib.suppress(FloorcastError):
            await self._pipeline.run(evaluate(self._scripts.forget, keys, spoken))

    # --- watching

    async def watch(self, channel: str) -> None:
        # What was asked last holds, and is settled here, before anything waits.
        watch = self._watches.add(channel)
        if watch.position is not None:
            return
        spoken = self._keys.spoken(channel)
        self._spoken[spoken] = channel
        self._listener.subscribe(spoken)
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watch.settled.append(settled)
        if not self._up:
            raise away()
        await self._within_time(settled)

    async def unwatch(self, channel: str) -> None:
        if channel not in self._watches:
            return
        self._watches.drop(channel)
        spoken = self._keys.spoken(channel)
        del self._spoken[spoken]
        self._listener.unsubscribe(spoken)

    # --- inside

    def _careful(self, tell: Callable[[T], None]) -> Callable[[T], None]:
        """What fails there is not ours: the next entry is told all the same."""

        def told(what: T) -> None:
            try:
                tell(what)
            except Exception as failure:
                self._failures.report(failure)

        return told

    async def _within_time(self, done: asyncio.Future[None] | None) -> None:
        if done is None:
            return
        # Not `asyncio.timeout`: a handler runs without a task until it waits for the first time.
        loop = asyncio.get_running_loop()
        limit = loop.call_later(self._config.timeout_seconds, _give_up, done)
        try:
            await done
        finally:
            limit.cancel()

    def _new_epoch(self) -> bytes:
        return b"%b.%x" % (self._node.encode(), next(self._epochs))

    def _oldest_ms(self) -> int:
        return int(self._clock.time() * 1000) - self._age_ms

    async def _read(self, channel: str, known: Position | None, *, state: bool) -> Reading:
        spoken = self._keys.spoken(channel)
        command: Command = evaluate(
            self._scripts.read,
            [head_of(spoken), log_of(spoken)],
            self._new_epoch(),
            b"" if known is None else known.epoch.encode(),
            0 if known is None else known.seq,
            self._oldest_ms(),
            b"1" if state else b"",
        )
        epoch, seq, last, whole, updates, told, entries = await self._pipeline.run(command)
        head = Position(epoch.decode(), seq)
        latest = folded(
            self._decode(channel, last),
            self._decode(channel, whole),
            self._decode_all(channel, updates),
        )
        return Reading(
            head,
            # It may have come in the epoch before.
            None if latest is None else replace(latest, position=head),
            tuple(self._decode_all(channel, entries)) if told else None,
        )

    def _decode(self, channel: str, message: Any) -> Entry | None:
        return decode(channel, message, self._config.entry_bytes) if message else None

    def _decode_all(self, channel: str, messages: Iterable[Any]) -> list[Entry]:
        decoded = [self._decode(channel, each) for each in messages]
        return [each for each in decoded if each is not None]

    def _wanted(self) -> Iterable[bytes]:
        return tuple(self._spoken)

    def _hear(self, spoken: bytes, message: object) -> None:
        channel = self._spoken.get(spoken)
        if channel is None:
            return
        entry = decode(channel, message, self._config.entry_bytes)
        if entry is None:
            if not self._is_said(channel, message):
                self._counters.add("broker.strange")
        elif self._watches.hear(entry):
            self._work.set()

    def _is_said(self, channel: str, message: object) -> bool:
        if not isinstance(message, bytes) or len(message) > self._config.entry_bytes:
            return False
        return any(on_said(channel, message) for on_said, _ in self._overhearers)

    def _doubt(self, spoken: bytes) -> None:
        channel = self._spoken.get(spoken)
        if channel is not None:
            self._watches.doubt(channel)
            self._work.set()

    def _look_around(self) -> None:
        """Something has gone, or is back."""
        if not (self._pipeline.up and self._listener.up):
            self._set_up(False)
        if not self._listener.up:
            for channel in self._watches.channels():
                self._watches.doubt(channel)
        self._work.set()

    def _set_up(self, up: bool) -> None:
        if self._up != up:
            self._up = up
            if not up:
                self._counters.add("broker.lost")
            self._on_state(up)
            if up:
                for _, on_up in self._overhearers:
                    on_up()

    async def _keep_reading(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._watches.behind and self._pipeline.up:
                some = itertools.islice(self._watches.behind, _READS_AT_ONCE)
                await asyncio.gather(*map(self._catch_up, tuple(some)))
            if self._pipeline.up and self._listener.up:
                self._set_up(True)

    async def _catch_up(self, channel: str) -> None:
        watch = self._watches.get(channel)
        if watch is None:
            return
        known = watch.position
        try:
            reading = await self._read(channel, known, state=known is not None)
        except FloorcastError:
            # It stays behind until Redis is back.
            return
        self._watches.read(channel, known, reading)

    async def _keep_probing(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            if not (self._pipeline.up and self._listener.up):
                continue
            if loop.time() - self._listener.heard_at > _DEAF_SECONDS:
                self._counters.add("broker.deaf")
                await self._listener.reopen()
                continue
            try:
                await self._pipeline.run((b"PUBLISH", self._own, b""))
            except FloorcastError:
                continue


def _give_up(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(away())


def _claimed(known: bytes, claim: Claim) -> Receipt:
    digest, epoch, seq, ts_ms = known.decode().split(" ")
    if digest != claim.digest.hex():
        raise RequestError(
            ErrorCode.PUBLISH_CONFLICT, "another message was published under this id"
        )
    return Receipt(Position(epoch, int(seq)), int(ts_ms))


def _milliseconds(seconds: float) -> int:
    return max(1, min(int(seconds * 1000), _LONGEST_MS))


def _reason(error: BaseException) -> str:
    """Not the words of the library: they may quote the URL, and its password."""
    # What was wrong at the door comes wrapped as a connection that failed.
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, SSLCertVerificationError):
        return f"its certificate is not to be trusted ({error.verify_message.rstrip('.')})"
    if isinstance(error, ResponseError | AuthenticationError):
        return f"it refuses us ({type(error).__name__})"
    return f"it does not answer ({type(error).__name__})"
