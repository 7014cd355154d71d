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
_FEED_SLOT = 0


@dataclass(slots=True)
class WorkerSlot:
    """A listening socket, and the worker that serves on it."""

    number: int
    listener: socket.socket
    worker: Worker | None = None
    # Held while one worker takes the place of another.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


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
        check_settings: Callable[[], object],
        retry_seconds: float = 2.0,
    ) -> None:
        self._launcher = launcher
        self._slots = [WorkerSlot(number, listener) for number, listener in enumerate(listeners)]
        self._clock = clock
        self._limit = limit
        self._stop_seconds = drain_seconds + _SLACK_SECONDS
        self._check_settings = check_settings
        self._retry_seconds = retry_seconds
        self._alive: set[Worker] = set()
        self._draining: set[Worker] = set()
        self._stop_signal = signal.SIGTERM
        self._stop_requested = asyncio.Event()
        self._kill_requested = asyncio.Event()
        self._renewal_requested = asyncio.Event()

    def stop(self, signum: signal.Signals) -> None:
        """Pass the signal on and end when all workers have; a second one kills them."""
        if self._stop_requested.is_set():
            self._kill_requested.set()
        else:
            self._stop_signal = signum
            self._stop_requested.set()

    def renew(self) -> None:
        """Replace every worker, one after the other, by one that reads the settings anew."""
        try:
            self._check_settings()
        except ConfigurationError as error:
            logger.error("nothing was renewed: the settings are wrong", extra={"why": str(error)})
        else:
            self._renewal_requested.set()

    async def run(self, announce: Callable[[], None]) -> bool:
        """Start all workers, announce, keep them until told; whether all ended by themselves."""
        keeping = _task(self._run_all(announce), "floorcast-keep")
        told = _task(self._stop_requested.wait(), "floorcast-told")
        try:
            await asyncio.wait({keeping, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            keeping.cancel()
            told.cancel()
            await asyncio.wait({keeping, told})
            in_time = await self._stop_all()
        if not keeping.cancelled():
            await keeping
        return in_time

    async def _run_all(self, announce: Callable[[], None]) -> None:
        try:
            async with asyncio.TaskGroup() as starting:
                for seat in self._slots:
                    starting.create_task(
                        self._start_worker(seat), name=f"floorcast-start-{seat.number}"
                    )
            announce()
            async with asyncio.TaskGroup() as keeping:
                for seat in self._slots:
                    keeping.create_task(
                        self._replace_dead_workers(seat), name=f"floorcast-keep-{seat.number}"
                    )
                keeping.create_task(self._renew_on_request(), name="floorcast-renew")
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    # --- one seat

    async def _start_worker(self, slot: WorkerSlot) -> Worker | None:
        """Let a new worker take the seat; the one that had it, and has now handed over."""
        worker = await self._launcher.launch(slot.number, slot.listener)
        self._alive.add(worker)
        try:
            await worker.wait_ready()
        except WorkerFailed:
            self._alive.discard(worker)
            raise
        logger.info("a worker is ready", extra={"worker": slot.number, "pid": worker.pid})
        last, slot.worker = slot.worker, worker
        if last is not None:
            self._draining.add(last)
            await last.hand_over()
        if slot.number == _FEED_SLOT:
            worker.start_feed()
        return last

    async def _replace_dead_workers(self, slot: WorkerSlot) -> None:
        """Replace whoever dies there."""
        while True:
            worker = slot.worker
            assert worker is not None
            code = await worker.wait_ended()
            async with slot.lock:
                if slot.worker is worker:
                    logger.error(
                        "a worker has died",
                        extra={"worker": slot.number, "pid": worker.pid, "code": code},
                    )
                    self._alive.discard(worker)
                    await self._replace(slot)

    async def _replace(self, slot: WorkerSlot) -> None:
        slot.worker = None
        goes_on = self._limit.record_death(self._clock.monotonic())
        while goes_on:
            try:
                await self._start_worker(slot)
            except WorkerFailed as failure:
                logger.error(
                    "a worker could not be replaced",
                    extra={"worker": slot.number, "why": failure.message},
                )
            else:
                return
            if any(each.worker is not None for each in self._slots):
                # Redis may be away for a while, and the others do what they can without it.
                await asyncio.sleep(self._retry_seconds)
            else:
                goes_on = self._limit.record_death(self._clock.monotonic())
        raise TooManyDeaths(self._limit.deaths, self._limit.seconds)

    # --- all of them

    async def _renew_on_request(self) -> None:
        while True:
            await self._renewal_requested.wait()
            self._renewal_requested.clear()
            try:
                await self._renew_all()
            except WorkerFailed as failure:
                logger.error(
                    "renewing was given up: a new worker failed", extra={"why": failure.message}
                )
            else:
                logger.info("all workers are renewed")

    async def _renew_all(self) -> None:
        for seat in self._slots:
            async with seat.lock:
                last = await self._start_worker(seat)
            if last is not None:
                await self._wait_drained(last)

    async def _wait_drained(self, worker: Worker) -> None:
        """Wait until its clients have gone elsewhere, and it with them."""
        try:
            async with asyncio.timeout(self._stop_seconds):
                await worker.wait_ended()
        except TimeoutError:
            logger.error("a worker does not end", extra={"worker": worker.number})
            await worker.kill()
        self._draining.discard(worker)
        self._alive.discard(worker)

    async def _stop_all(self) -> bool:
        """Pass the signal on, and wait; who does not end in time is killed."""
        for worker in self._alive:
            # Who drains already would take a SIGTERM for impatience.
            if self._stop_signal is not signal.SIGTERM or worker not in self._draining:
                worker.send_signal(self._stop_signal)
        ending = {
            _task(worker.wait_ended(), f"floorcast-end-{worker.number}") for worker in self._alive
        }
        hurried = _task(self._kill_requested.wait(), "floorcast-hurried")
        try:
            async with asyncio.timeout(self._stop_seconds):
                while ending and not self._kill_requested.is_set():
                    done, _ = await asyncio.wait(
                        {*ending, hurried}, return_when=asyncio.FIRST_COMPLETED
                    )
                    ending -= done
        except TimeoutError:
            logger.error("workers did not end in time, and are killed")
        finally:
            hurried.cancel()
        for worker in self._alive:
            worker.send_signal(signal.SIGKILL)
        await asyncio.wait({hurried, *ending})
        return not ending


def _task(coroutine: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(coroutine, name=name)
