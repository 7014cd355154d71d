"""Hands parked connections to other nodes: on request, or through Redis when a node stops."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Collection
from functools import partial

from server.brokers.failure_log import FailureLog
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.config import RedisConfig
from server.brokers.redis.connection.address import AddressKind
from server.brokers.redis.connection.client import Command
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.replies import as_optional_bytes
from server.brokers.redis.recovery.codec import (
    FetchReply,
    FetchRequest,
    SavedConnection,
    connection_key,
    decode_message,
    decode_saved,
    encode,
)
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.recovery.connection_state import ConnectionState, ResumeRequest
from server.core.recovery.tickets import node_of
from server.ports import ExportConnection
from server.tasks import cancel_and_wait

# Time limits for resuming a connection, and for the reply of a node that may be dead.
_FETCH_TIMEOUT_SECONDS = 1.0
_REPLY_TIMEOUT_SECONDS = 0.6
_SAVE_TIMEOUT_SECONDS = 3.0
# The location of a moved connection is stored this long, longer than any connection lasts.
_LOCATION_TTL_SECONDS = 7 * 86_400
_MAX_FETCHES = 1_000
_MAX_QUEUED = 10_000
_BATCH_SIZE = 256


def _export_nothing(_: ResumeRequest) -> ConnectionState | None:
    """Export no connection: used while the handover is not running."""
    return None


class RedisHandover:
    """Implements `Handover`; nodes send requests to each other's direct pub/sub channel."""

    def __init__(
        self,
        config: RedisConfig,
        broker: RedisBroker,
        counters: Counters,
        *,
        window_seconds: float,
    ) -> None:
        self._broker = broker
        self._counters = counters
        self._keys = Keys(config.prefix)
        self._window_ms = max(1, int(window_seconds * 1000))
        # In a Cluster PUBLISH counts only the receivers on its own shard.
        self._counts_receivers = config.address.kind is not AddressKind.CLUSTER
        self._export: ExportConnection = _export_nothing
        self._numbers = itertools.count(1)
        self._fetches: dict[int, asyncio.Future[ConnectionState | None]] = {}
        # Requests of other nodes, and commands to send, in order.
        self._requests: deque[FetchRequest] = deque()
        self._commands: deque[Command] = deque()
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure_log = FailureLog()

    @property
    def node(self) -> str:
        return self._broker.node

    async def start(self, export: ExportConnection) -> None:
        self._export = export
        self._broker.set_direct_handler(self._on_message)
        self._task = self._broker.tasks.keep(self._serve_loop, "floorcast-handover")

    async def stop(
        self, export_all: Callable[[], Collection[tuple[ResumeRequest, ConnectionState]]]
    ) -> None:
        if self._task is None:
            return
        self._export = _export_nothing
        await cancel_and_wait(self._task)
        self._task = None
        # Save first, then reply: a node that gets None looks for the saved connection.
        with contextlib.suppress(FloorcastError, TimeoutError):
            async with asyncio.timeout(_SAVE_TIMEOUT_SECONDS):
                await self._save(export_all())
                await self._run_all(self._commands)
                while self._requests:
                    await self._answer_all()

    # --- fetching from other nodes

    async def fetch(self, request: ResumeRequest) -> ConnectionState | None:
        if len(self._fetches) >= _MAX_FETCHES:
            return None
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_SECONDS):
                state = await self._fetch_from_node(request)
                if state is not None:
                    self._counters.add("recovery.from_node")
                    return state
                state = await self._fetch_saved(request)
        except (FloorcastError, TimeoutError):
            self._counters.add("recovery.unanswered")
            return None
        if state is None:
            self._counters.add("recovery.not_had")
            return None
        self._counters.add("recovery.from_saved")
        self._enqueue(self._location_command(request, self.node))
        return state

    def forget(self, request: ResumeRequest) -> None:
        if node_of(request.pid) != self.node:
            self._enqueue((b"DEL", self._keys.connection_node(connection_key(request))))

    async def _fetch_from_node(self, request: ResumeRequest) -> ConnectionState | None:
        moved = as_optional_bytes(
            await self._broker.run((b"GET", self._keys.connection_node(connection_key(request))))
        )
        node = moved.decode(errors="replace") if moved else node_of(request.pid)
        if node == self.node:
            return None
        number = next(self._numbers)
        encoded = encode(FetchRequest(1, number, self.node, request))
        assert encoded is not None
        reply: asyncio.Future[ConnectionState | None] = asyncio.get_running_loop().create_future()
        self._fetches[number] = reply
        try:
            receivers = await self._broker.run((b"PUBLISH", self._keys.node(node), encoded))
            if self._counts_receivers and not receivers:
                return None
            async with asyncio.timeout(_REPLY_TIMEOUT_SECONDS):
                return await reply
        except TimeoutError:
            # The node may be dead, and the connection saved.
            self._counters.add("recovery.unanswered")
            return None
        finally:
            del self._fetches[number]

    async def _fetch_saved(self, request: ResumeRequest) -> ConnectionState | None:
        value = await self._broker.run(
            (b"GETDEL", self._keys.saved_connection(connection_key(request)))
        )
        saved = decode_saved(value)
        if saved is None or saved.offset != request.offset:
            return None
        return saved.luggage

    def _location_command(self, request: ResumeRequest, node: str) -> Command:
        """The command that records which node holds the connection, if not the one in its pid."""
        key = self._keys.connection_node(connection_key(request))
        if node_of(request.pid) == node:
            return (b"DEL", key)
        return (b"SET", key, node.encode(), b"EX", _LOCATION_TTL_SECONDS)

    # --- exporting to other nodes

    def _on_message(self, message: object) -> None:
        decoded = decode_message(message)
        if isinstance(decoded, FetchReply):
            waiting = self._fetches.get(decoded.answer)
            if waiting is not None and not waiting.done():
                waiting.set_result(decoded.luggage)
        elif isinstance(decoded, FetchRequest) and len(self._requests) < _MAX_QUEUED:
            self._requests.append(decoded)
            self._wakeup.set()
        else:
            self._counters.add("broker.strange")

    def _requeue(self, request: FetchRequest, _: object) -> None:
        """Handle a request again after a pending fetch of the same connection."""
        self._requests.append(request)
        self._wakeup.set()

    def _enqueue(self, command: Command) -> None:
        if len(self._commands) < _MAX_QUEUED:
            self._commands.append(command)
            self._wakeup.set()

    async def _serve_loop(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._requests or self._commands:
                await self._answer_all()
                await self._run_all(self._commands)

    async def _answer_all(self) -> None:
        locations: deque[Command] = deque()
        replies: deque[Command] = deque()
        while self._requests:
            request = self._requests.popleft()
            state = self._export_for(request)
            if isinstance(state, asyncio.Task):
                state.add_done_callback(partial(self._requeue, request))
                continue
            reply = encode(FetchReply(1, request.ask, state))
            if reply is None:
                # Too large: it cannot be resumed, and the other node must not wait.
                state, reply = None, encode(FetchReply(1, request.ask, None))
                assert reply is not None
            self._counters.add("recovery.refused" if state is None else "recovery.given")
            if state is not None:
                locations.append(self._location_command(request.reclaim, request.node))
            replies.append((b"PUBLISH", self._keys.node(request.node), reply))
        # Locations first: a client that resumes on a third node must find its connection.
        await self._run_all(locations)
        await self._run_all(replies)

    def _export_for(self, request: FetchRequest) -> ConnectionState | asyncio.Task[bool] | None:
        try:
            return self._export(request.reclaim)
        except Exception as failure:
            # A failing export must not stop later ones.
            self._failure_log.report(failure)
            return None

    async def _save(self, connections: Collection[tuple[ResumeRequest, ConnectionState]]) -> None:
        commands: deque[Command] = deque()
        for request, state in connections:
            saved = (
                None
                if request.offset is None
                else encode(SavedConnection(1, request.offset, state))
            )
            if saved is not None:
                key = self._keys.saved_connection(connection_key(request))
                commands.append((b"SET", key, saved, b"PX", self._window_ms))
        self._counters.add("recovery.saved", await self._run_all(commands))

    async def _run_all(self, commands: deque[Command]) -> int:
        """Run all commands without retries; returns how many succeeded."""
        succeeded = 0
        while commands:
            batch = [commands.popleft() for _ in range(min(_BATCH_SIZE, len(commands)))]
            replies = await asyncio.gather(*map(self._broker.run, batch), return_exceptions=True)
            succeeded += sum(not isinstance(each, BaseException) for each in replies)
        return succeeded
