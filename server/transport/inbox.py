"""Handles the packets of one connection in order, without a task if no handler suspends."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from server.core.limits.time_budget import BUDGET_SECONDS, TIGHT_BUDGET_SECONDS, TimeBudget
from server.core.wire.packets import RawPacket
from server.transport import eager
from server.transport.fair_queue import FairQueue
from server.transport.overlap import OrderKeys, Overlap

# Beyond either, reading from the client is paused.
_MAX_WAITING = 64
_MAX_WAITING_CHARACTERS = 64 * 1024
# A packet that is not longer costs hardly more than to let it wait.
_SMALL_CHARACTERS = 1024
# What the answer to a refused event costs.
_REFUSAL_SECONDS = 0.00001


class PacketReceiver(Protocol):
    """The connection of an inbox."""

    async def handle(self, packet: RawPacket) -> None:
        """Handle one packet."""

    def pause_reading(self) -> None:
        """Stop reading from the client."""

    def resume_reading(self) -> None:
        """Read from the client again; packets that were read already may come at once."""


class Inbox:
    """Handles one packet at a time; others wait as text, bounded in number and size.

    An event whose handler calls `order_by` lets later ones start while it is suspended.

    A connection that took more of the loop's time than its budget waits in the fair queue before
    each further packet, and before each further step of a handler that yields.
    """

    __slots__ = (
        "_awaits_turn",
        "_budget",
        "_fair_queue",
        "_idle",
        "_is_paused",
        "_order",
        "_overlap",
        "_receiver",
        "_task",
        "_task_characters",
        "_waiting",
        "_waiting_characters",
    )

    def __init__(self, receiver: PacketReceiver, fair_queue: FairQueue) -> None:
        # None once closed: it also holds this inbox.
        self._receiver: PacketReceiver | None = receiver
        self._fair_queue = fair_queue
        self._budget = TimeBudget(fair_queue.clock.monotonic())
        # The suspended handler that later packets wait for.
        self._task: asyncio.Task[None] | None = None
        self._task_characters = 0
        # Set by the running handler, and used when it suspends.
        self._order: Callable[[], OrderKeys] | None = None
        self._overlap: Overlap | None = None
        self._awaits_turn = False
        self._is_paused = False
        self._waiting: deque[RawPacket] | None = None
        self._waiting_characters = 0
        self._idle: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a packet is being handled or waits for its turn."""
        return self._is_taken or bool(self._overlap)

    @property
    def _is_taken(self) -> bool:
        """Whether the next packet has to wait."""
        return self._task is not None or self._awaits_turn

    @property
    def waiting_count(self) -> int:
        """The number of waiting packets."""
        return 0 if self._waiting is None else len(self._waiting)

    def put(self, packet: RawPacket) -> None:
        """Handle a packet now, or after those before it."""
        if self._task is not None or self._awaits_turn or self._waiting:
            self._enqueue(packet)
            return
        now = self._fair_queue.clock.monotonic()
        if self._must_wait(packet, now):
            self._enqueue(packet)
            self._await_turn(now)
        else:
            self._start(packet, now)

    def count_refused(self) -> None:
        """Count the time of an event that was refused instead of being put here.

        A connection over its budget is not read until its turn comes.
        """
        now = self._fair_queue.clock.monotonic()
        self._budget.spend(now, now, _REFUSAL_SECONDS)
        self._fair_queue.count(_REFUSAL_SECONDS)
        if not self._is_taken and self._budget.is_spent(now, self._budget_seconds):
            self._await_turn(now)

    def close(self) -> None:
        """Drop the waiting packets and cancel the running handler: the connection has ended."""
        self._receiver = None
        self._waiting = None
        self._awaits_turn = False
        if self._task is not None:
            self._task.cancel()
        if self._overlap is not None:
            self._overlap.cancel()
        if not self.busy:
            self._wake()

    def order_by(self, keys: Callable[[], OrderKeys]) -> Coroutine[Any, Any, None] | None:
        """Let later packets start while the handler that calls this is suspended.

        Returns what the handler must await first, if earlier packets are suspended: those that
        share a key with it.
        """
        self._order = keys
        return None if self._overlap is None else self._overlap.wait(keys())

    def order_last(self) -> Coroutine[Any, Any, None] | None:
        """What to await for the end of every earlier packet; None if all are handled."""
        return None if self._overlap is None else self._overlap.wait(None)

    async def wait_idle(self) -> None:
        """Wait until every received packet is handled."""
        if self.busy:
            # An abandoned POST has cancelled the one it waited for.
            if self._idle is None or self._idle.cancelled():
                self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def take_turn(self) -> float:
        """Handle one waiting packet, and more while there is time."""
        self._awaits_turn = False
        if self._waiting:
            self._start(self._next(), self._fair_queue.clock.monotonic())
        self._continue()
        return 0.0

    def delay(self, *, yielded: bool, again: bool) -> Any:
        """What a suspended handler awaits before its next step, None if it may go on."""
        queue = self._fair_queue
        if again:
            return queue.turn(first=True) if queue.is_full else None
        if not (queue.is_full or yielded):
            return None
        is_spent = self._budget.is_spent(queue.clock.monotonic())
        return queue.turn(first=not is_spent) if queue.is_full or is_spent else None

    def step(self, coroutine: Coroutine[Any, Any, None], value: Any) -> Any:
        """Run a suspended handler until it suspends again."""
        began, cpu_began = self._fair_queue.clock.monotonic(), self._cpu_seconds()
        try:
            awaited = coroutine.send(value)
        finally:
            self._spend(began, cpu_began)
            order, self._order = self._order, None
        if order is not None:
            self._let_others_start(order())
        return awaited

    @property
    def _budget_seconds(self) -> float:
        return TIGHT_BUDGET_SECONDS if self._fair_queue.is_full else BUDGET_SECONDS

    def _must_wait(self, packet: RawPacket, now: float) -> bool:
        if not self._fair_queue.is_full:
            return self._budget.is_spent(now)
        return len(packet.body) > _SMALL_CHARACTERS or self._budget.is_spent(
            now, TIGHT_BUDGET_SECONDS
        )

    def _cpu_seconds(self) -> float | None:
        return self._fair_queue.cpu_seconds() if self._budget.is_suspect else None

    def _spend(self, began: float, cpu_began: float | None) -> None:
        cpu_seconds = None if cpu_began is None else self._fair_queue.cpu_seconds() - cpu_began
        ended = self._fair_queue.clock.monotonic()
        self._budget.spend(began, ended, cpu_seconds)
        self._fair_queue.count(ended - began)

    def _enqueue(self, packet: RawPacket) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(packet)
        self._waiting_characters += len(packet.body)
        if (
            len(self._waiting) >= _MAX_WAITING
            or self._waiting_characters >= _MAX_WAITING_CHARACTERS
        ):
            self._pause()

    def _next(self) -> RawPacket:
        assert self._waiting is not None
        packet = self._waiting.popleft()
        self._waiting_characters -= len(packet.body)
        return packet

    def _await_turn(self, now: float) -> None:
        self._awaits_turn = True
        self._pause()
        self._fair_queue.add(self, first=not self._budget.is_spent(now))

    def _pause(self) -> None:
        if not self._is_paused and self._receiver is not None:
            self._is_paused = True
            self._receiver.pause_reading()

    def _start(self, packet: RawPacket, now: float) -> None:
        # Without a call for each step: this runs for every packet.
        queue, budget = self._fair_queue, self._budget
        cpu_began = queue.cpu_seconds() if budget.is_suspect else None
        rest = None
        try:
            rest = eager.start(self._work(packet), self)
        finally:
            cpu_seconds = None if cpu_began is None else queue.cpu_seconds() - cpu_began
            ended = queue.clock.monotonic()
            budget.spend(now, ended, cpu_seconds)
            queue.count(ended - now)
            order, self._order = self._order, None
        if rest is not None:
            self._task = self._fair_queue.tasks.start(rest, "floorcast-packet")
            self._task_characters = len(packet.body)
            if self._receiver is None:
                # The handler closed its own connection before it suspended.
                self._task.cancel()
            elif order is not None:
                self._let_others_start(order())

    def _let_others_start(self, keys: OrderKeys) -> None:
        if self._task is None or self._receiver is None:
            return
        if self._overlap is None:
            self._overlap = Overlap()
        if self._overlap.add(self._task, keys, self._task_characters):
            self._task = None
            if self._waiting is not None:
                # Outside this task: the end of the next packet would be taken for the end of this.
                asyncio.get_running_loop().call_soon(self._continue)

    async def _work(self, packet: RawPacket) -> None:
        try:
            if self._receiver is not None:
                await self._receiver.handle(packet)
        finally:
            if self._overlap is not None and self._overlap.remove(asyncio.current_task()):
                if not self._overlap:
                    self._overlap = None
                self._continue()
            # Still None if the handler did not suspend.
            elif self._task is not None:
                self._task = None
                self._continue()

    def _continue(self) -> None:
        """Handle what waits while there is time, then read on."""
        if self._receiver is None and not self.busy:
            self._wake()
        while self._receiver is not None and not self._is_taken:
            if not self._waiting:
                self._waiting = None
                if not self._overlap:
                    self._wake()
                if self._is_paused:
                    self._is_paused = False
                    self._receiver.resume_reading()
                return
            now = self._fair_queue.clock.monotonic()
            if self._must_wait(self._waiting[0], now):
                self._await_turn(now)
                return
            self._start(self._next(), now)

    def _wake(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)
