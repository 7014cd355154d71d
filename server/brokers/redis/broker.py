"""The broker for many nodes: Redis assigns positions, stores entries and publishes them."""

import asyncio
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ssl import SSLCertVerificationError

from redis.exceptions import AuthenticationError, ResponseError

from server.brokers.errors import BrokerError
from server.brokers.redis.config import RedisConfig
from server.brokers.redis.connection.client import CONNECTION_ERRORS, Command, create_client
from server.brokers.redis.connection.failover import FailoverWatch
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.replies import Reply
from server.brokers.redis.connection.schema import check_schema
from server.brokers.redis.connection.subscribers import Subscribers
from server.brokers.redis.log.reader import LogReader
from server.brokers.redis.log.scripts import Bounds, Scripts, ScriptsByKind
from server.brokers.redis.log.subscriber import LogSubscriber
from server.brokers.redis.log.topic_counts import SCRIPTS as TOPIC_COUNT_SCRIPTS
from server.brokers.redis.log.topic_counts import TopicCounts
from server.brokers.redis.log.writer import LogWriter
from server.brokers.redis.notices.scripts import SCRIPTS as NOTICE_SCRIPTS
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.limits.expiring_shares import ExpiringShares
from server.core.log.entries import Entry, Position, Reset
from server.core.log.history import HistoryBounds
from server.ports import Clock, ignore
from server.tasks import TaskOwner

# An upper bound for expiry times; Redis rejects values that overflow.
_MAX_TTL_MS = 10 * 365 * 86_400_000
_UNWATCHED_SECONDS = 5.0
# A session that was silent for so long counts to no share: another node may have deleted it.
_COUNTED_SECONDS = 86_400.0
_MAX_UNWATCHED = 10_000


class RedisBroker:
    """Implements `Broker`: streams are authoritative, pub/sub only announces new entries."""

    def __init__(
        self,
        clock: Clock,
        counters: Counters,
        config: RedisConfig,
        tasks: TaskOwner | None = None,
    ) -> None:
        self.counters = counters
        # The other services over Redis start their tasks here too.
        self.tasks = tasks or TaskOwner(counters)
        self._clock = clock
        # Channels that this node watched until lately, the oldest first.
        self._unwatched: OrderedDict[str, float] = OrderedDict()
        node = self.node = secrets.token_hex(6)
        epochs = itertools.count(1)
        keys = Keys(config.prefix)
        self._schema, self._schema_key = config.schema, keys.schema()
        self._histories = config.histories
        idle_ms = _milliseconds(config.idle_seconds)
        topics = _bounds(config, config.histories.topics, idle_ms)
        sessions = _bounds(config, config.histories.sessions, idle_ms)
        scripts = ScriptsByKind(
            Scripts.build(topics),
            # A log without its head is lost.
            Scripts.build(replace(sessions, idle_ms=max(idle_ms, sessions.log_ms))),
        )
        client = create_client(
            config.address,
            (*scripts.topics, *scripts.sessions, *TOPIC_COUNT_SCRIPTS, *NOTICE_SCRIPTS),
            timeout_seconds=config.timeout_seconds,
            name=f"{config.prefix}-{node}",
        )

        def new_epoch() -> bytes:
            return b"%b.%x" % (node.encode(), next(epochs))

        self._pipeline = Pipeline(
            client,
            self.tasks,
            name="floorcast-broker-pipeline",
            timeout_seconds=config.timeout_seconds,
            max_queued=config.max_queued,
            # A lambda: the subscriber needs the pipeline, and is created after it.
            on_change=lambda: self._subscriber.check_connections(),
            replicas=config.acknowledging_replicas,
            counters=counters,
        )
        subscribers = Subscribers(self._pipeline, is_cluster=config.address.is_cluster)
        self._reader = LogReader(
            self._pipeline,
            subscribers,
            scripts,
            keys,
            clock,
            new_epoch=new_epoch,
            max_entry_bytes=config.max_entry_bytes,
        )
        self._subscriber = LogSubscriber(
            client,
            self._pipeline,
            self._reader,
            keys,
            counters,
            self.tasks,
            own_channel=keys.node(node),
            timeout_seconds=config.timeout_seconds,
            max_entry_bytes=config.max_entry_bytes,
        )
        self._failover_watch = FailoverWatch(
            config.address,
            self.tasks,
            self._on_failover,
            timeout_seconds=config.timeout_seconds,
        )
        # Other connections to the master, which must leave it too.
        self._reconnects: list[Callable[[], Awaitable[None]]] = [self._subscriber.reconnect]
        shares = config.shares
        self._topic_counts = TopicCounts(
            self._pipeline,
            subscribers,
            keys,
            clock,
            shares.topics,
            silent_seconds=shares.silent_seconds,
            # Topics themselves are kept for so long.
            idle_ms=idle_ms,
        )
        self._writer = writer = LogWriter(
            self._pipeline,
            scripts,
            keys,
            new_epoch=new_epoch,
            max_entry_bytes=config.max_entry_bytes,
            histories=ExpiringShares(shares.histories, keep_seconds=topics.log_ms / 1000),
            session_histories=ExpiringShares(
                shares.session_histories,
                keep_seconds=min(sessions.log_ms / 1000, _COUNTED_SECONDS),
            ),
            claims=ExpiringShares(shares.claims, keep_seconds=config.idempotency_seconds),
        )
        # Bound methods: the hot path calls the writer and the reader without a wrapper.
        self.find, self.publish = writer.find, writer.publish
        self.add_topic = self._topic_counts.add
        self.before = self._reader.before
        self.watch = self._subscriber.watch
        self.add_listener = self._subscriber.add_listener
        self.set_direct_handler = self._subscriber.set_direct_handler
        self.set_answer_handler = self._subscriber.set_answer_handler

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        try:
            await self._subscriber.start(deliver, on_reset, on_state)
            await check_schema(self._pipeline, self._schema_key, self._schema)
        except CONNECTION_ERRORS as error:
            await self.stop()
            raise BrokerError(_reason(error)) from None
        except FloorcastError as error:
            await self.stop()
            raise BrokerError(error.message) from None
        except BrokerError:
            await self.stop()
            raise
        self._failover_watch.start()

    def add_connection(self, reconnect: Callable[[], Awaitable[None]]) -> None:
        """Call `reconnect` when another server becomes the master."""
        self._reconnects.append(reconnect)

    async def _on_failover(self) -> None:
        for reconnect in self._reconnects:
            await reconnect()

    async def stop(self) -> None:
        await self._failover_watch.stop()
        await self._subscriber.stop()

    async def run(self, command: Command, *, durable: bool = False) -> Reply:
        """Run one command of another service, batched with the broker's own.

        If `durable`, replicas must have it as they must have messages.
        """
        return await self._pipeline.run(command, durable=durable)

    def submit(self, command: Command) -> asyncio.Future[Reply]:
        """Send one command of another service; raises `FloorcastError` if Redis is unavailable."""
        return self._pipeline.submit(command)

    async def head(self, channel: str) -> Position:
        return (await self._reader.read(channel, None, state=False)).head

    async def latest(self, channel: str) -> Entry | None:
        return (await self._reader.read(channel, None, state=True)).latest

    async def is_rolled_back(self, channel: str) -> bool:
        return (await self._reader.read(channel, None, state=True)).rolled_back

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        state = await self._reader.read(channel, position, state=False)
        await self._subscriber.wait_until(channel, state.head)
        if state.missed is None or state.head.epoch != position.epoch:
            return None
        if not self._histories.of(channel).can_replay(state.missed):
            return None
        return list(state.missed)

    async def unwatch(self, channel: str) -> None:
        await self._subscriber.unwatch(channel)
        # A subscription has created the head, so that all nodes agree on its epoch. It must not
        # stay if nothing was published; Redis may still count this node as a subscriber now.
        now = self._clock.monotonic()
        self._unwatched[channel] = now
        while self._unwatched:
            oldest, since = next(iter(self._unwatched.items()))
            if since + _UNWATCHED_SECONDS > now and len(self._unwatched) <= _MAX_UNWATCHED:
                break
            del self._unwatched[oldest]
            if oldest not in self._subscriber:
                self._reader.forget_empty(oldest)

    async def forget(self, channel: str, *, silent_since_ms: int | None = None) -> bool:
        # Without a request: this node is the likeliest subscriber.
        if channel in self._subscriber:
            return False
        deleted = await self._reader.forget(channel, silent_since_ms)
        if deleted:
            self._writer.forget(channel)
        return deleted


def _bounds(config: RedisConfig, history: HistoryBounds, idle_ms: int) -> Bounds:
    return Bounds(
        messages=history.messages,
        bytes=history.bytes,
        age_ms=_milliseconds(history.seconds),
        replay_messages=history.replay_messages,
        claim_ms=_milliseconds(config.idempotency_seconds),
        idle_ms=idle_ms,
    )


def _milliseconds(seconds: float) -> int:
    return max(1, min(int(seconds * 1000), _MAX_TTL_MS))


def _reason(error: BaseException) -> str:
    """Describe an error without the library's text, which may quote the URL and its password."""
    # redis-py wraps authentication and TLS errors in a connection error.
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, SSLCertVerificationError):
        return f"Redis's certificate is not trusted ({error.verify_message.rstrip('.')})"
    if isinstance(error, ResponseError | AuthenticationError):
        return f"Redis rejects this server's credentials or rights ({type(error).__name__})"
    return f"Redis does not answer ({type(error).__name__})"
