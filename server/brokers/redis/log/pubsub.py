"""Receives the messages of subscribed channels over one pub/sub connection."""

import asyncio
import math
from collections.abc import Callable, Iterable

from redis.asyncio.connection import AbstractConnection

from server.brokers.redis.connection.client import CONNECTION_ERRORS, RedisClient
from server.tasks import TaskOwner, cancel_and_wait, run_until_first_ends

_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.02, 1.0
# After this many messages other tasks get a turn.
_MESSAGES_PER_TURN = 64
_CHANNELS_PER_COMMAND = 512


class PubSub:
    """A pub/sub connection that reconnects and subscribes again after a failure.

    `last_echo_at` is when a probe on the own channel last arrived: if it stays old, call `reopen`.
    """

    def __init__(
        self,
        client: RedisClient,
        own_channel: bytes,
        tasks: TaskOwner,
        *,
        timeout_seconds: float,
        wanted_channels: Callable[[], Iterable[bytes]],
        on_direct: Callable[[object], None],
        on_message: Callable[[bytes, object], None],
        on_subscribed: Callable[[bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._own_channel = own_channel
        self._timeout_seconds = timeout_seconds
        # The channels to subscribe to, called on each new connection.
        self._wanted_channels = wanted_channels
        self._on_direct = on_direct
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_change = on_change
        self._connection: AbstractConnection | None = None
        # The latest command per channel that was not sent yet.
        self._changes: dict[bytes, bytes] = {}
        self._changed = asyncio.Event()
        self._reopen_requested = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_echo_at = -math.inf
        self.is_up = False

    async def start(self) -> None:
        """Connect; raises the connection error if Redis is unavailable."""
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        self._task = self._tasks.keep(self._run, "floorcast-broker-pubsub")

    async def stop(self) -> None:
        """Close the connection; nothing is received afterwards."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        await self._close()

    def subscribe(self, channel: bytes) -> None:
        """Subscribe, confirmed by `on_subscribed`; of overlapping calls the last one wins."""
        self._enqueue(b"SUBSCRIBE", channel)

    def unsubscribe(self, channel: bytes) -> None:
        """Unsubscribe; of overlapping calls the last one wins."""
        self._enqueue(b"UNSUBSCRIBE", channel)

    def reopen(self) -> None:
        """Replace a connection that receives nothing any more."""
        self._reopen_requested.set()

    def _enqueue(self, verb: bytes, channel: bytes) -> None:
        # A new connection subscribes to all wanted channels anyway.
        if self._connection is not None:
            self._changes[channel] = verb
            self._changed.set()

    async def _open(self) -> AbstractConnection:
        self._reopen_requested.clear()
        async with asyncio.timeout(self._timeout_seconds):
            connection = self._connection = await self._client.open_pubsub()
            self._changes.clear()
            await _command(connection, b"SUBSCRIBE", [self._own_channel])
            await self._send(connection, b"SUBSCRIBE", list(self._wanted_channels()))
        self.last_echo_at = _now()
        self.is_up = True
        return connection

    async def _send(
        self, connection: AbstractConnection, verb: bytes, channels: list[bytes]
    ) -> None:
        for at in range(0, len(channels), _CHANNELS_PER_COMMAND):
            await _command(connection, verb, channels[at : at + _CHANNELS_PER_COMMAND])

    async def _close(self) -> None:
        self.is_up = False
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _run(self) -> None:
        pause = 0.0
        while True:
            try:
                connection = self._connection
                if connection is None:
                    connection = await self._open()
                    self._on_change()
                pause = 0.0
                await self._serve(connection)
            except Exception as failure:
                await self._close()
                self._on_change()
                if not isinstance(failure, CONNECTION_ERRORS):
                    raise
                pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LAST_PAUSE_SECONDS)
                await asyncio.sleep(pause)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Use the connection until it fails; nothing else touches it, and `_run` closes it."""
        await run_until_first_ends(
            self._listen(connection),
            self._send_changes(connection),
            self._fail_on_reopen(),
            name="floorcast-broker-pubsub-connection",
        )

    async def _fail_on_reopen(self) -> None:
        await self._reopen_requested.wait()
        raise ConnectionError("the connection receives nothing")

    async def _listen(self, connection: AbstractConnection) -> None:
        count = 0
        while True:
            reply = await connection.read_response(timeout=math.inf)
            match reply:
                case [b"message", bytes() as channel, message]:
                    if channel == self._own_channel:
                        self.last_echo_at = _now()
                        if message:
                            self._on_direct(message)
                    else:
                        self._on_message(channel, message)
                case [b"subscribe", bytes() as channel, _] if channel != self._own_channel:
                    self._on_subscribed(channel)
                case _:
                    pass
            count += 1
            if count % _MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _send_changes(self, connection: AbstractConnection) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            changes, self._changes = self._changes, {}
            async with asyncio.timeout(self._timeout_seconds):
                for verb in (b"UNSUBSCRIBE", b"SUBSCRIBE"):
                    channels = [each for each, latest in changes.items() if latest == verb]
                    await self._send(connection, verb, channels)


async def _command(connection: AbstractConnection, verb: bytes, channels: list[bytes]) -> None:
    packed = connection.pack_command(verb, *channels)
    await connection.send_packed_command(packed, check_health=False)


def _now() -> float:
    # The loop's clock, as for the time limits of the connection.
    return asyncio.get_running_loop().time()
