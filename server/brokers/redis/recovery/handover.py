"""Hands connections over from node to node: asked for where they are, or left behind in Redis."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Collection
from functools import partial

from server.brokers.failures import Failures
from server.brokers.redis.broker import RedisBroker, RedisConfig
from server.brokers.redis.connection.address import Kind
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.wire import Command
from server.brokers.redis.recovery.codec import (
    Answer,
    Ask,
    Saved,
    name_of,
    read_saved,
    read_told,
    write,
)
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.recovery.connection_state import Luggage, Reclaim
from server.core.recovery.tickets import node_of
from server.ports import Give

# A connect waits no longer; and no longer for a node that may have died.
_LIMIT_SECONDS = 1.0
_ANSWER_SECONDS = 0.6
_SAVING_SECONDS = 3.0
# Who is had back on ever other nodes goes by a note in Redis; nobody is connected for longer.
_MOVED_SECONDS = 7 * 86_400
_MAX_ASKED = 1_000
_MAX_WAITING = 10_000
_MANY = 256


def _refuse(_: Reclaim) -> Luggage | None:
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
        self._counts = config.address.kind is not Kind.CLUSTER
        self._give: Give = _refuse
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Luggage | None]] = {}
        # What others ask of this node, and what is to be said to Redis, in order.
        self._asks: deque[Ask] = deque()
        self._orders: deque[Command] = deque()
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = Failures()

    @property
    def node(self) -> str:
        return self._broker.node

    async def start(self, give: Give) -> None:
        self._give = give
        self._broker.answer_to(self._hear)
        self._task = asyncio.create_task(self._keep_giving(), name="floorcast-handover")

    async def stop(self, leave: Callable[[], Collection[tuple[Reclaim, Luggage]]]) -> None:
        if self._task is None:
            return
        self._give = _refuse
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        # Who asks meanwhile is answered when it is there for them.
        with contextlib.suppress(FloorcastError, TimeoutError):
            async with asyncio.timeout(_SAVING_SECONDS):
                await self._save(leave())
                await self._say(self._orders)
                while self._asks:
                    await self._answer_all()

    # --- what others have

    async def fetch(self, reclaim: Reclaim) -> Luggage | None:
        if len(self._asked) >= _MAX_ASKED:
            return None
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                luggage = await self._from_holder(reclaim)
                if luggage is not None:
                    self._counters.add("recovery.from_node")
                    return luggage
                luggage = await self._from_saved(reclaim)
        except (FloorcastError, TimeoutError):
            self._counters.add("recovery.unanswered")
            return None
        if luggage is None:
            self._counters.add("recovery.not_had")
            return None
        self._counters.add("recovery.from_saved")
        self._order(self._note(reclaim, self.node))
        return luggage

    def forget(self, reclaim: Reclaim) -> None:
        if node_of(reclaim.pid) != self.node:
            self._order((b"DEL", self._keys.moved(name_of(reclaim))))

    async def _from_holder(self, reclaim: Reclaim) -> Luggage | None:
        moved = await self._broker.run((b"GET", self._keys.moved(name_of(reclaim))))
        node: str = moved.decode(errors="replace") if moved else node_of(reclaim.pid)
        if node == self.node:
            return None
        number = next(self._numbers)
        asked = write(Ask(1, number, self.node, reclaim))
        assert asked is not None
        answer: asyncio.Future[Luggage | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            heard = await self._broker.run((b"PUBLISH", self._keys.node(node), asked))
            if self._counts and not heard:
                return None
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            # It may have died, and left the connection behind.
            self._counters.add("recovery.unanswered")
            return None
        finally:
            del self._asked[number]

    async def _from_saved(self, reclaim: Reclaim) -> Luggage | None:
        value = await self._broker.run((b"GETDEL", self._keys.saved(name_of(reclaim))))
        saved = read_saved(value)
        if saved is None or saved.offset != reclaim.offset:
            return None
        return saved.luggage

    def _note(self, reclaim: Reclaim, node: str) -> Command:
        """The connection is at this node now, whatever node its secret names."""
        key = self._keys.moved(name_of(reclaim))
        if node_of(reclaim.pid) == node:
            return (b"DEL", key)
        return (b"SET", key, node.encode(), b"EX", _MOVED_SECONDS)

    # --- what others want

    def _hear(self, message: object) -> None:
        told = read_told(message)
        if isinstance(told, Answer):
            waiting = self._asked.get(told.answer)
            if waiting is not None and not waiting.done():
                waiting.set_result(told.luggage)
        elif isinstance(told, Ask) and len(self._asks) < _MAX_WAITING:
            self._asks.append(told)
            self._work.set()
        else:
            self._counters.add("broker.strange")

    def _consider(self, ask: Ask, _: object) -> None:
        """It is on the way to this node no more: look again."""
        self._asks.append(ask)
        self._work.set()

    def _order(self, command: Command) -> None:
        if len(self._orders) < _MAX_WAITING:
            self._orders.append(command)
            self._work.set()

    async def _keep_giving(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._asks or self._orders:
                await self._answer_all()
                await self._say(self._orders)

    async def _answer_all(self) -> None:
        notes: deque[Command] = deque()
        answers: deque[Command] = deque()
        while self._asks:
            ask = self._asks.popleft()
            luggage = self._given(ask)
            if isinstance(luggage, asyncio.Task):
                luggage.add_done_callback(partial(self._consider, ask))
                continue
            self._counters.add("recovery.refused" if luggage is None else "recovery.given")
            answer = write(Answer(1, ask.ask, luggage))
            if answer is None:
                continue
            if luggage is not None:
                notes.append(self._note(ask.reclaim, ask.node))
            answers.append((b"PUBLISH", self._keys.node(ask.node), answer))
        # First the notes: who is back at a third node by then, or here, finds it where it went.
        await self._say(notes)
        await self._say(answers)

    def _given(self, ask: Ask) -> Luggage | asyncio.Task[bool] | None:
        try:
            return self._give(ask.reclaim)
        except Exception as failure:
            # What fails there is not ours: the next one is given all the same.
            self._failures.report(failure)
            return None

    async def _save(self, left: Collection[tuple[Reclaim, Luggage]]) -> None:
        commands: deque[Command] = deque()
        for reclaim, luggage in left:
            saved = None if reclaim.offset is None else write(Saved(1, reclaim.offset, luggage))
            if saved is not None:
                key = self._keys.saved(name_of(reclaim))
                commands.append((b"SET", key, saved, b"PX", self._window_ms))
        self._counters.add("recovery.saved", await self._say(commands))

    async def _say(self, commands: deque[Command]) -> int:
        """Run them all; what fails is not said again. How many did not fail."""
        said = 0
        while commands:
            some = [commands.popleft() for _ in range(min(_MANY, len(commands)))]
            replies = await asyncio.gather(*map(self._broker.run, some), return_exceptions=True)
            said += sum(not isinstance(each, BaseException) for each in replies)
        return said
