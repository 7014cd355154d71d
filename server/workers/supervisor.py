"""Keeps one worker on each listening socket: starts, replaces, renews and stops them."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.access import ConfigurationError
from server.ports import Clock
from server.workers.failures import TooManyDeaths, WorkerFailed
from server.workers.process import Launcher, Worker
from server.workers.restarts import RestartLimit

logger = logging.getLogger(__name__)

# On top of the drain: who has not ended by then is stuck.
_SLACK_SECONDS = 10.0
_FEEDING_SEAT = 0


@dataclass(slots=True)
class Seat:
    """A listening socket, and the worker that serves on it."""

    number: int
    listener: socket.socket
    worker: Worker | None = None
    # Held while one worker takes the place of another.
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Supervisor:
    """The sockets stay open here: what has queued up at a dead worker reaches the next one.

    The worker of the first seat runs the feed, and its successor only when it is over there: so
    never two run at once.
    """

    def __init__(
        self,
        launcher: Launcher,
        listeners: Sequence[socket.socket],
        *,
        clock: Clock,
        limit: RestartLimit,
        drain_seconds: float,
        judge: Callable[[], object],
        again_seconds: float = 2.0,
    ) -> None:
        self._launcher = launcher
        self._seats = [Seat(number, listener) for number, listener in enumerate(listeners)]
        self._clock = clock
        self._limit = limit
        self._end_seconds = drain_seconds + _SLACK_SECONDS
        self._judge = judge
        self._again_seconds = again_seconds
        self._alive: set[Worker] = set()
        self._leaving: set[Worker] = set()
        self._how = signal.SIGTERM
        self._told = asyncio.Event()
        self._hurried = asyncio.Event()
        self._renewal = asyncio.Event()

    def stop(self, how: signal.Signals) -> None:
        """Pass the signal on and end when all workers have; a second one kills them."""
        if self._told.is_set():
            self._hurried.set()
        else:
            self._how = how
            self._told.set()

    def renew(self) -> None:
        """Replace every worker, one after the other, by one that reads the settings anew."""
        try:
            self._judge()
        except ConfigurationError as error:
            logger.error("nothing was renewed: the settings are wrong", extra={"why": str(error)})
        else:
            self._renewal.set()

    async def run(self, announce: Callable[[], None]) -> bool:
        """Start all workers, announce, keep them until told; whether all ended by themselves."""
        keeping = _task(self._keep_all(announce), "floorcast-keep")
        told = _task(self._told.wait(), "floorcast-told")
        try:
            await asyncio.wait({keeping, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            keeping.cancel()
            told.cancel()
            await asyncio.wait({keeping, told})
            in_time = await self._end_all()
        if not keeping.cancelled():
            await keeping
        return in_time

    async def _keep_all(self, announce: Callable[[], None]) -> None:
        try:
            async with asyncio.TaskGroup() as starting:
                for seat in self._seats:
                    starting.create_task(self._fill(seat), name=f"floorcast-start-{seat.number}")
            announce()
            async with asyncio.TaskGroup() as keeping:
                for seat in self._seats:
                    keeping.create_task(self._keep(seat), name=f"floorcast-keep-{seat.number}")
                keeping.create_task(self._renew_when_asked(), name="floorcast-renew")
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    # --- one seat

    async def _fill(self, seat: Seat) -> Worker | None:
        """Let a new worker take the seat; the one that had it, and has now handed over."""
        worker = await self._launcher.launch(seat.number, seat.listener)
        self._alive.add(worker)
        try:
            await worker.ready()
        except WorkerFailed:
            self._alive.discard(worker)
            raise
        logger.info("a worker is ready", extra={"worker": seat.number, "pid": worker.pid})
        last, seat.worker = seat.worker, worker
        if last is not None:
            self._leaving.add(last)
            await last.hand_over()
        if seat.number == _FEEDING_SEAT:
            worker.feed()
        return last

    async def _keep(self, seat: Seat) -> None:
        """Replace whoever dies there."""
        while True:
            worker = seat.worker
            assert worker is not None
            code = await worker.ended()
            async with seat.changing:
                if seat.worker is worker:
                    logger.error(
                        "a worker has died",
                        extra={"worker": seat.number, "pid": worker.pid, "code": code},
                    )
                    self._alive.discard(worker)
                    await self._replace(seat)

    async def _replace(self, seat: Seat) -> None:
        seat.worker = None
        goes_on = self._limit.note(self._clock.monotonic())
        while goes_on:
            try:
                await self._fill(seat)
            except WorkerFailed as failure:
                logger.error(
                    "a worker could not be replaced",
                    extra={"worker": seat.number, "why": failure.message},
                )
            else:
                return
            if any(each.worker is not None for each in self._seats):
                # Redis may be away for a while, and the others do what they can without it.
                await asyncio.sleep(self._again_seconds)
            else:
                goes_on = self._limit.note(self._clock.monotonic())
        raise TooManyDeaths(self._limit.deaths, self._limit.seconds)

    # --- all of them

    async def _renew_when_asked(self) -> None:
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            try:
                await self._renew_all()
            except WorkerFailed as failure:
                logger.error(
                    "renewing was given up: a new worker failed", extra={"why": failure.message}
                )
            else:
                logger.info("all workers are renewed")

    async def _renew_all(self) -> None:
        for seat in self._seats:
            async with seat.changing:
                last = await self._fill(seat)
            if last is not None:
                await self._see_off(last)

    async def _see_off(self, worker: Worker) -> None:
        """Wait until its clients have gone elsewhere, and it with them."""
        try:
            async with asyncio.timeout(self._end_seconds):
                await worker.ended()
        except TimeoutError:
            logger.error("a worker does not end", extra={"worker": worker.number})
            await worker.kill()
        self._leaving.discard(worker)
        self._alive.discard(worker)

    async def _end_all(self) -> bool:
        """Pass the signal on, and wait; who does not end in time is killed."""
        for worker in self._alive:
            # Who drains already would take a SIGTERM for impatience.
            if self._how is not signal.SIGTERM or worker not in self._leaving:
                worker.signal(self._how)
        ending = {_task(worker.ended(), f"floorcast-end-{worker.number}") for worker in self._alive}
        hurried = _task(self._hurried.wait(), "floorcast-hurried")
        try:
            async with asyncio.timeout(self._end_seconds):
                while ending and not self._hurried.is_set():
                    done, _ = await asyncio.wait(
                        {*ending, hurried}, return_when=asyncio.FIRST_COMPLETED
                    )
                    ending -= done
        except TimeoutError:
            logger.error("workers did not end in time, and are killed")
        finally:
            hurried.cancel()
        for worker in self._alive:
            worker.signal(signal.SIGKILL)
        await asyncio.wait({hurried, *ending})
        return not ending


def _task(work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(work, name=name)
