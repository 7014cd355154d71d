"""A broker for many nodes: Redis gives the positions, keeps the entries, and tells who watches."""

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ssl import SSLCertVerificationError
from typing import Any

from redis.exceptions import AuthenticationError, ResponseError

from server.brokers.errors import BrokerError
from server.brokers.redis.connection.address import Address
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.wire import CONNECTION_ERRORS, Command, create_client
from server.brokers.redis.log.reader import LogReader
from server.brokers.redis.log.scripts import Bounds, Scripts
from server.brokers.redis.log.subscriber import LogSubscriber
from server.brokers.redis.log.writer import LogWriter
from server.core.counters import Counters
from server.core.log.entries import Entry, Position, Reset
from server.ports import Clock, ignore

# Redis takes no longer expiry, and nobody wants one.
_MAX_TTL_MS = 10 * 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Where Redis is, and how much it keeps for us."""

    address: Address
    prefix: str = "floorcast"
    timeout_seconds: float = 2.0
    max_queued: int = 20_000
    max_entry_bytes: int = 4 * 1024 * 1024
    idle_seconds: float = 7 * 86_400
    lease_seconds: float = 8.0
    idempotency_seconds: float = 120.0
    history_messages: int = 1_000
    history_bytes: int = 1024 * 1024
    history_seconds: float = 300.0


class RedisBroker:
    """Fills the `Broker` port; the streams are the truth, and pub/sub says that there is more."""

    def __init__(self, clock: Clock, counters: Counters, config: RedisConfig) -> None:
        node = self.node = secrets.token_hex(6)
        epochs = itertools.count(1)
        keys = Keys(config.prefix)
        age_ms = _milliseconds(config.history_seconds)
        scripts = Scripts.build(
            Bounds(
                messages=config.history_messages,
                bytes=config.history_bytes,
                age_ms=age_ms,
                claim_ms=_milliseconds(config.idempotency_seconds),
                idle_ms=_milliseconds(config.idle_seconds),
            )
        )
        wire = create_client(
            config.address,
            scripts,
            timeout_seconds=config.timeout_seconds,
            name=f"{config.prefix}-{node}",
        )

        def new_epoch() -> bytes:
            return b"%b.%x" % (node.encode(), next(epochs))

        self._pipeline = Pipeline(
            wire,
            name="floorcast-broker-pipeline",
            timeout_seconds=config.timeout_seconds,
            max_queued=config.max_queued,
            # The follower reads through the pipeline.
            on_change=lambda: self._subscriber.check_connections(),
        )
        self._reader = LogReader(
            self._pipeline,
            scripts,
            keys,
            clock,
            new_epoch=new_epoch,
            max_entry_bytes=config.max_entry_bytes,
            age_ms=age_ms,
        )
        self._subscriber = LogSubscriber(
            wire,
            self._pipeline,
            self._reader,
            keys,
            counters,
            own_channel=keys.node(node),
            timeout_seconds=config.timeout_seconds,
            max_entry_bytes=config.max_entry_bytes,
        )
        writer = LogWriter(
            self._pipeline,
            scripts,
            keys,
            new_epoch=new_epoch,
            max_entry_bytes=config.max_entry_bytes,
        )
        # What each part does, as it is: one call, and described there.
        self.find, self.publish = writer.find, writer.publish
        self.before = self._reader.before
        self.watch, self.unwatch = self._subscriber.watch, self._subscriber.unwatch
        self.add_listener, self.set_direct_handler = (
            self._subscriber.add_listener,
            self._subscriber.set_direct_handler,
        )

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        try:
            await self._subscriber.start(deliver, on_reset, on_state)
        except (*CONNECTION_ERRORS, TimeoutError) as error:
            await self.stop()
            raise BrokerError(_reason(error)) from None

    async def stop(self) -> None:
        await self._subscriber.stop()

    async def run(self, command: Command) -> Any:
        """Run one command for somebody else, in a batch with ours."""
        return await self._pipeline.run(command)

    async def head(self, channel: str) -> Position:
        return (await self._reader.read(channel, None, state=False)).head

    async def latest(self, channel: str) -> Entry | None:
        return (await self._reader.read(channel, None, state=True)).latest

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        reading = await self._reader.read(channel, position, state=False)
        await self._subscriber.wait_until(channel, reading.head)
        if reading.missed is None or reading.head.epoch != position.epoch:
            return None
        return list(reading.missed)

    async def forget(self, channel: str) -> None:
        # A shard knows only those who listen through it.
        if channel not in self._subscriber:
            await self._reader.forget(channel)


def _milliseconds(seconds: float) -> int:
    return max(1, min(int(seconds * 1000), _MAX_TTL_MS))


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
