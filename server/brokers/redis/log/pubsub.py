"""Hears what is told to the watched channels, and finds out when it has gone deaf."""

import asyncio
import math
from collections.abc import Callable, Iterable

from redis.asyncio.connection import AbstractConnection

from server.brokers.redis.connection.tasks import cancel_and_wait
from server.brokers.redis.connection.wire import CONNECTION_ERRORS, RedisClient

_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.02, 1.0
# One turn of the loop is not held up by more.
_MESSAGES_PER_TURN = 64
_CHANNELS_PER_COMMAND = 512


class PubSub:
    """One pub/sub connection, opened again whenever it ends or says nothing of what we said."""

    def __init__(
        self,
        client: RedisClient,
        own_channel: bytes,
        *,
        timeout_seconds: float,
        wanted_channels: Callable[[], Iterable[bytes]],
        on_direct: Callable[[object], None],
        on_message: Callable[[bytes, object], None],
        on_subscribed: Callable[[bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self._client = client
        self._own_channel = own_channel
        self._timeout_seconds = timeout_seconds
        # What has to be heard, asked whenever a connection is new.
        self._wanted_channels = wanted_channels
        self._on_direct = on_direct
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_change = on_change
        self._connection: AbstractConnection | None = None
        # The last word on each channel that has not been said to Redis yet.
        self._changes: dict[bytes, bytes] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # When our own words were last heard.
        self.last_echo_at = -math.inf
        self.is_up = False

    async def start(self) -> None:
        """Connect; raises what keeps us from it."""
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        create_task = asyncio.create_task
        self._tasks = [
            create_task(self._listen_loop(), name="floorcast-broker-listener"),
            create_task(self._command_loop(), name="floorcast-broker-subscriber"),
        ]

    async def stop(self) -> None:
        """Hear nothing more."""
        await cancel_and_wait(*self._tasks)
        self._tasks.clear()
        await self._close()

    def subscribe(self, channel: bytes) -> None:
        """Hear this; what was asked last holds. Confirmed by `on_subscribed`."""
        self._enqueue(b"SUBSCRIBE", channel)

    def unsubscribe(self, channel: bytes) -> None:
        """Hear it no more."""
        self._enqueue(b"UNSUBSCRIBE", channel)

    async def reopen(self) -> None:
        """It is deaf: end the connection; another is opened."""
        await self._close()

    def _enqueue(self, verb: bytes, channel: bytes) -> None:
        # A connection that is not there yet asks for all that is wanted by then.
        if self._connection is not None:
            self._changes[channel] = verb
            self._changed.set()

    async def _open(self) -> None:
        async with asyncio.timeout(self._timeout_seconds):
            connection = self._connection = await self._client.open_pubsub()
            self._changes.clear()
            await _command(connection, b"SUBSCRIBE", [self._own_channel])
            await self._send(connection, b"SUBSCRIBE", list(self._wanted_channels()))
        self.last_echo_at = _now()
        self.is_up = True

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

    async def _listen_loop(self) -> None:
        pause = 0.0
        while True:
            try:
                connection = self._connection
                if connection is None:
                    await self._open()
                    self._on_change()
                    continue
                pause = 0.0
                await self._listen(connection)
            except (*CONNECTION_ERRORS, TimeoutError):
                await self._close()
                self._on_change()
                pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LAST_PAUSE_SECONDS)
                await asyncio.sleep(pause)

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

    async def _command_loop(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            orders, self._changes = self._changes, {}
            connection = self._connection
            if connection is None:
                continue
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    for verb in (b"UNSUBSCRIBE", b"SUBSCRIBE"):
                        channels = [each for each, said in orders.items() if said == verb]
                        await self._send(connection, verb, channels)
            except (*CONNECTION_ERRORS, TimeoutError):
                # Whoever listens on it hears of it, and opens another.
                await connection.disconnect(nowait=True)


async def _command(connection: AbstractConnection, verb: bytes, channels: list[bytes]) -> None:
    packed = connection.pack_command(verb, *channels)
    await connection.send_packed_command(packed, check_health=False)


def _now() -> float:
    # A connection is deaf by the time of the loop, which its time limits go by too.
    return asyncio.get_running_loop().time()
