"""Hands connections over from node to node: asked for where they are, or left behind in Redis."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Collection
from functools import partial

from server.brokers.failures import FailureLog
from server.brokers.redis.broker import RedisBroker, RedisConfig
from server.brokers.redis.connection.address import AddressKind
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.wire import Command
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

# A connect waits no longer; and no longer for a node that may have died.
_FETCH_TIMEOUT_SECONDS = 1.0
_REPLY_TIMEOUT_SECONDS = 0.6
_SAVE_TIMEOUT_SECONDS = 3.0
# Who is had back on ever other nodes goes by a note in Redis; nobody is connected for longer.
_LOCATION_TTL_SECONDS = 7 * 86_400
_MAX_FETCHES = 1_000
_MAX_QUEUED = 10_000
_BATCH_SIZE = 256


def _export_nothing(_: ResumeRequest) -> ConnectionState | None:
    """Before the start, and after the end."""
    return None


class RedisHandover:
    """Fills the `Handover` port; a node is asked on the channel on which it hears itself."""

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
        # A shard counts only those who listen through it.
        self._counts_receivers = config.address.kind is not AddressKind.CLUSTER
        self._export: ExportConnection = _export_nothing
        self._numbers = itertools.count(1)
        self._fetches: dict[int, asyncio.Future[ConnectionState | None]] = {}
        # What others ask of this node, and what is to be said to Redis, in order.
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
        self._task = asyncio.create_task(self._serve_loop(), name="floorcast-handover")

    async def stop(
        self, export_all: Callable[[], Collection[tuple[ResumeRequest, ConnectionState]]]
    ) -> None:
        if self._task is None:
            return
        self._export = _export_nothing
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        # Who asks meanwhile is answered when it is there for them.
        with contextlib.suppress(FloorcastError, TimeoutError):
            async with asyncio.timeout(_SAVE_TIMEOUT_SECONDS):
                await self._save(export_all())
                await self._run_all(self._commands)
                while self._requests:
                    await self._answer_all()

    # --- what others have

    async def fetch(self, request: ResumeRequest) -> ConnectionState | None:
        if len(self._fetches) >= _MAX_FETCHES:
            return None
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_SECONDS):
                luggage = await self._fetch_from_node(request)
                if luggage is not None:
                    self._counters.add("recovery.from_node")
                    return luggage
                luggage = await self._fetch_saved(request)
        except (FloorcastError, TimeoutError):
            self._counters.add("recovery.unanswered")
            return None
        if luggage is None:
            self._counters.add("recovery.not_had")
            return None
        self._counters.add("recovery.from_saved")
        self._enqueue(self._location_command(request, self.node))
        return luggage

    def forget(self, request: ResumeRequest) -> None:
        if node_of(request.pid) != self.node:
            self._enqueue((b"DEL", self._keys.connection_node(connection_key(request))))

    async def _fetch_from_node(self, request: ResumeRequest) -> ConnectionState | None:
        moved = await self._broker.run(
            (b"GET", self._keys.connection_node(connection_key(request)))
        )
        node: str = moved.decode(errors="replace") if moved else node_of(request.pid)
        if node == self.node:
            return None
        number = next(self._numbers)
        asked = encode(FetchRequest(1, number, self.node, request))
        assert asked is not None
        answer: asyncio.Future[ConnectionState | None] = asyncio.get_running_loop().create_future()
        self._fetches[number] = answer
        try:
            heard = await self._broker.run((b"PUBLISH", self._keys.node(node), asked))
            if self._counts_receivers and not heard:
                return None
            async with asyncio.timeout(_REPLY_TIMEOUT_SECONDS):
                return await answer
        except TimeoutError:
            # It may have died, and left the connection behind.
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
        """The connection is at this node now, whatever node its secret names."""
        key = self._keys.connection_node(connection_key(request))
        if node_of(request.pid) == node:
            return (b"DEL", key)
        return (b"SET", key, node.encode(), b"EX", _LOCATION_TTL_SECONDS)

    # --- what others want

    def _on_message(self, message: object) -> None:
        told = decode_message(message)
        if isinstance(told, FetchReply):
            waiting = self._fetches.get(told.answer)
            if waiting is not None and not waiting.done():
                waiting.set_result(told.luggage)
        elif isinstance(told, FetchRequest) and len(self._requests) < _MAX_QUEUED:
            self._requests.append(told)
            self._wakeup.set()
        else:
            self._counters.add("broker.strange")

    def _requeue(self, request: FetchRequest, _: object) -> None:
        """It is on the way to this node no more: look again."""
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
        notes: deque[Command] = deque()
        answers: deque[Command] = deque()
        while self._requests:
            ask = self._requests.popleft()
            luggage = self._export_for(ask)
            if isinstance(luggage, asyncio.Task):
                luggage.add_done_callback(partial(self._requeue, ask))
                continue
            self._counters.add("recovery.refused" if luggage is None else "recovery.given")
            answer = encode(FetchReply(1, ask.ask, luggage))
            if answer is None:
                continue
            if luggage is not None:
                notes.append(self._location_command(ask.reclaim, ask.node))
            answers.append((b"PUBLISH", self._keys.node(ask.node), answer))
        # First the notes: who is back at a third node by then, or here, finds it where it went.
        await self._run_all(notes)
        await self._run_all(answers)

    def _export_for(self, request: FetchRequest) -> ConnectionState | asyncio.Task[bool] | None:
        try:
            return self._export(request.reclaim)
        except Exception as failure:
            # What fails there is not ours: the next one is given all the same.
            self._failure_log.report(failure)
            return None

    async def _save(self, connections: Collection[tuple[ResumeRequest, ConnectionState]]) -> None:
        commands: deque[Command] = deque()
        for reclaim, luggage in connections:
            saved = (
                None
                if reclaim.offset is None
                else encode(SavedConnection(1, reclaim.offset, luggage))
            )
            if saved is not None:
                key = self._keys.saved_connection(connection_key(reclaim))
                commands.append((b"SET", key, saved, b"PX", self._window_ms))
        self._counters.add("recovery.saved", await self._run_all(commands))

    async def _run_all(self, commands: deque[Command]) -> int:
        """Run them all; what fails is not said again. How many did not fail."""
        said = 0
        while commands:
            some = [commands.popleft() for _ in range(min(_BATCH_SIZE, len(commands)))]
            replies = await asyncio.gather(*map(self._broker.run, some), return_exceptions=True)
            said += sum(not isinstance(each, BaseException) for each in replies)
        return said
