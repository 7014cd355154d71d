"""Starts, replaces, renews and stops the workers, one on each listening socket."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.access import ConfigurationError
from server.metrics import Report, Reports, Samples, amounts, totals, with_earlier
from server.ports import Clock
from server.workers.failures import TooManyDeaths, WorkerFailed
from server.workers.process import Launcher, Worker
from server.workers.restarts import RestartLimit

logger = logging.getLogger(__name__)

# Added to the drain time; a worker that has not ended by then is killed.
_SLACK_SECONDS = 10.0
_FEED_SLOT = 0
_PING_SECONDS = 1.0


@dataclass(slots=True)
class WorkerSlot:
    """A listening socket and its current worker."""

    number: int
    listener: socket.socket
    worker: Worker | None = None
    # The earlier workers that still drain, and what those counted that have ended.
    draining: set[Worker] = field(default_factory=set)
    ended: Samples = field(default_factory=Samples)
    # Held while the worker is replaced.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def keep_counters(self, worker: Worker) -> None:
        """Keep what a worker has counted, which has ended."""
        if worker.last_report is not None:
            self.ended = totals((self.ended, worker.last_report.samples))


class Supervisor:
    """Keeps the sockets open, so that connections queued at a dead worker reach the next one.

    The worker of the first slot runs the feed. Its successor starts the feed only after the
    hand-over: two feeds never run at once.
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
        hang_seconds: float = 0.0,
        ping_seconds: float = _PING_SECONDS,
    ) -> None:
        self._launcher = launcher
        self._slots = [WorkerSlot(number, listener) for number, listener in enumerate(listeners)]
        self._clock = clock
        self._limit = limit
        self._stop_seconds = drain_seconds + _SLACK_SECONDS
        self._check_settings = check_settings
        self._retry_seconds = retry_seconds
        # 0 for never.
        self._hang_seconds = hang_seconds
        self._ping_seconds = ping_seconds
        self._died = self._hung = 0
        self._alive: set[Worker] = set()
        self._stop_signal = signal.SIGTERM
        self._stop_requested = asyncio.Event()
        self._kill_requested = asyncio.Event()
        self._renewal_requested = asyncio.Event()

    def stop(self, signum: signal.Signals) -> None:
        """Forward the signal and end when all workers have; a second call kills them."""
        if self._stop_requested.is_set():
            self._kill_requested.set()
        else:
            self._stop_signal = signum
            self._stop_requested.set()

    def renew(self) -> None:
        """Replace every worker, one at a time, by one with the current settings.

        Logs an error and replaces none if the settings are invalid.
        """
        try:
            self._check_settings()
        except ConfigurationError as error:
            logger.error("workers not renewed: the settings are invalid", extra={"why": str(error)})
        else:
            self._renewal_requested.set()

    async def run(self, announce: Callable[[], None]) -> bool:
        """Start all workers, announce, and keep them running until `stop`.

        Returns whether all ended without being killed. Raises `WorkersError` if one cannot start,
        or if they die too often.
        """
        keeping = _task(self._run_all(announce), "floorcast-keep")
        stop_requested = _task(self._stop_requested.wait(), "floorcast-stop")
        try:
            await asyncio.wait({keeping, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            keeping.cancel()
            stop_requested.cancel()
            await asyncio.wait({keeping, stop_requested})
            in_time = await self._stop_all()
        if not keeping.cancelled():
            await keeping
        return in_time

    async def _run_all(self, announce: Callable[[], None]) -> None:
        try:
            async with asyncio.TaskGroup() as starting:
                for slot in self._slots:
                    starting.create_task(
                        self._start_worker(slot), name=f"floorcast-start-{slot.number}"
                    )
            announce()
            async with asyncio.TaskGroup() as keeping:
                for slot in self._slots:
                    keeping.create_task(
                        self._replace_dead_workers(slot), name=f"floorcast-keep-{slot.number}"
                    )
                keeping.create_task(self._renew_on_request(), name="floorcast-renew")
                keeping.create_task(self._kill_hung_workers(), name="floorcast-heartbeat")
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def reports(self) -> Reports:
        """The reports of all workers, and the supervisor's.

        The counters of a worker go on from those of the earlier workers of its slot, so no sum
        falls. What workers that drain still have stands beside them.
        """
        silent = await asyncio.gather(*map(_find_silent, self._slots))
        samples = Samples()
        samples.add("floorcast_workers_died_total", self._died)
        samples.add("floorcast_workers_hung_total", self._hung)
        reports = {"supervisor": Report(samples, [])}
        # No await from here on: a worker that ends is counted once.
        for slot, worker in zip(self._slots, silent, strict=True):
            reports[str(slot.number)] = _report_of(slot, worker)
            for draining in slot.draining:
                if draining.last_report is not None:
                    rest = amounts(draining.last_report.samples)
                    reports[f"{slot.number}-draining"] = Report(rest, [])
        return reports

    # --- one slot

    async def _start_worker(self, slot: WorkerSlot) -> Worker | None:
        """Start a worker in the slot; return the previous one, which has handed over."""
        worker = await self._launcher.launch(slot.number, slot.listener)
        self._alive.add(worker)
        try:
            await worker.wait_ready()
        except WorkerFailed:
            self._alive.discard(worker)
            raise
        logger.info("a worker is ready", extra={"worker": slot.number, "pid": worker.pid})
        previous, slot.worker = slot.worker, worker
        if previous is not None:
            slot.draining.add(previous)
            await previous.hand_over()
        if slot.number == _FEED_SLOT:
            worker.start_feed()
        return previous

    async def _replace_dead_workers(self, slot: WorkerSlot) -> None:
        """Replace each worker of the slot that dies."""
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
                    self._died += 1
                    self._alive.discard(worker)
                    slot.keep_counters(worker)
                    await self._replace(slot)

    async def _replace(self, slot: WorkerSlot) -> None:
        slot.worker = None
        may_restart = self._limit.record_death(self._clock.monotonic())
        while may_restart:
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
                # Redis may be unavailable; the other workers keep serving meanwhile.
                await asyncio.sleep(self._retry_seconds)
            else:
                may_restart = self._limit.record_death(self._clock.monotonic())
        raise TooManyDeaths(self._limit.deaths, self._limit.seconds)

    async def _kill_hung_workers(self) -> None:
        """Kill each worker that does not answer its pings, so that it is replaced.

        Pings are counted, and not the time: if this process was stopped, no worker has hung.
        """
        if not self._hang_seconds:
            return
        max_missed = max(1, round(self._hang_seconds / self._ping_seconds))
        while True:
            await asyncio.sleep(self._ping_seconds)
            for worker in [slot.worker for slot in self._slots if slot.worker is not None]:
                if worker.missed_pings < max_missed:
                    worker.ping()
                else:
                    self._hung += 1
                    logger.error(
                        "killing a worker that hangs",
                        extra={
                            "worker": worker.number,
                            "pid": worker.pid,
                            "seconds": self._hang_seconds,
                        },
                    )
                    await worker.kill()

    # --- all slots

    async def _renew_on_request(self) -> None:
        while True:
            await self._renewal_requested.wait()
            self._renewal_requested.clear()
            try:
                await self._renew_all()
            except WorkerFailed as failure:
                logger.error(
                    "stopped renewing workers: a new worker failed", extra={"why": failure.message}
                )
            else:
                logger.info("all workers are renewed")

    async def _renew_all(self) -> None:
        for slot in self._slots:
            async with slot.lock:
                previous = await self._start_worker(slot)
            if previous is not None:
                await self._wait_drained(slot, previous)

    async def _wait_drained(self, slot: WorkerSlot, worker: Worker) -> None:
        """Wait until the worker has drained its clients and ended; kill it after the time limit."""
        try:
            async with asyncio.timeout(self._stop_seconds):
                await worker.wait_ended()
        except TimeoutError:
            logger.error("killing a worker that does not end", extra={"worker": worker.number})
            await worker.kill()
        slot.draining.discard(worker)
        slot.keep_counters(worker)
        self._alive.discard(worker)

    async def _stop_all(self) -> bool:
        """Forward the signal and wait; kill the workers that do not end in time."""
        draining = {worker for slot in self._slots for worker in slot.draining}
        for worker in self._alive:
            # To a draining worker a SIGTERM is a second signal, which skips the drain.
            if self._stop_signal is not signal.SIGTERM or worker not in draining:
                worker.send_signal(self._stop_signal)
        waits = {
            _task(worker.wait_ended(), f"floorcast-end-{worker.number}") for worker in self._alive
        }
        kill_requested = _task(self._kill_requested.wait(), "floorcast-hurried")
        try:
            async with asyncio.timeout(self._stop_seconds):
                while waits and not self._kill_requested.is_set():
                    done, _ = await asyncio.wait(
                        {*waits, kill_requested}, return_when=asyncio.FIRST_COMPLETED
                    )
                    waits -= done
        except TimeoutError:
            logger.error("killing the workers that did not end in time")
        finally:
            kill_requested.cancel()
        for worker in self._alive:
            worker.send_signal(signal.SIGKILL)
        await asyncio.wait({kill_requested, *waits})
        return not waits


async def _find_silent(slot: WorkerSlot) -> Worker | None:
    """Ask a slot's worker for its report; returns the worker if it does not answer."""
    while (worker := slot.worker) is not None:
        report = await worker.report()
        if slot.worker is worker:
            return worker if report is None else None
    return None


def _report_of(slot: WorkerSlot, silent: Worker | None) -> Report:
    """The report of a slot's worker, whose counters go on from those of the earlier ones."""
    earlier = [slot.ended]
    earlier += [each.last_report.samples for each in slot.draining if each.last_report is not None]
    worker = slot.worker
    last = None if worker is None else worker.last_report
    if worker is None or worker is silent:
        counted = totals(earlier if last is None else (*earlier, last.samples))
        return Report(counted, ["does not answer"], is_up=False)
    if last is None:
        # It has only just become ready.
        return Report(totals(earlier), [])
    return Report(with_earlier(last.samples, earlier), last.obstacles)


def _task(coroutine: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(coroutine, name=name)
