"""The data file behind the loop: one writer thread, and group commit.

What is appended in one turn of the loop, or while the writer is busy, is written in one
transaction: a commit waits for the disk once, however much it holds.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from client_sdk.contract import ErrorCode
from server.brokers.errors import BrokerError
from server.brokers.file.database import Database
from server.brokers.file.lock import FolderLock
from server.brokers.file.schema import Row, Statement
from server.core.counters import Counters
from server.core.errors import FloorcastError, LimitError

logger = logging.getLogger(__name__)

T = TypeVar("T")

SyncMode = Literal["always", "batch", "os"]

Jobs = queue.SimpleQueue[Callable[[], None] | None]

# For so long a commit waits for as many writes as the last one had.
_GATHER_SECONDS = 0.005
_RETRY_AFTER_MS = 1_000


@dataclass(frozen=True, slots=True)
class FileConfig:
    """Where the data is, and how safely it is written."""

    folder: Path
    sync: SyncMode = "batch"
    max_bytes: int = 4 * 1024**3
    max_waiting: int = 20_000
    timeout_seconds: float = 2.0


class Waiter(Protocol):
    """Who waits for a commit. Both calls come in the order in which the writes were added."""

    def settle(self, failure: FloorcastError | None) -> None:
        """Take note that all is on the disk, or, with a failure, that nothing is."""

    def give_up(self, failure: FloorcastError) -> None:
        """Stop waiting, because the disk does not answer; `settle` may come later."""


@dataclass(slots=True, eq=False)
class Batch:
    """What one commit writes, and who waits for it."""

    rows: dict[Statement, list[Row]] = field(default_factory=dict)
    waiters: list[Waiter] = field(default_factory=list)
    is_overdue: bool = False


class _Commit:
    """A call that waits for a commit."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, failure: FloorcastError | None) -> None:
        if self.done.done():
            return
        if failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(failure)

    def give_up(self, failure: FloorcastError) -> None:
        self.settle(failure)


class FileStore:
    """The data file of one server; opened by the broker, used by all parts of the backend."""

    def __init__(self, config: FileConfig, counters: Counters) -> None:
        self._config = config
        self._counters = counters
        self._latency = counters.histogram("broker.latency")
        self._write_began = 0.0
        self._lock = FolderLock(config.folder)
        self._database = Database(
            config.folder, fsync=config.sync != "os", max_bytes=config.max_bytes
        )
        self._jobs: Jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batch = Batch()
        self._writing: Batch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        # How many waited for the last commit.
        self._last_count = 1
        self._is_failing = False
        self._is_open = False

    async def open(self) -> None:
        """Lock the folder and open the file; raises `BrokerError` if that is impossible."""
        try:
            self._config.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BrokerError(f"cannot create {self._config.folder}: {error.strerror}") from None
        self._lock.acquire()
        self._loop = asyncio.get_running_loop()
        # A thread of an earlier run must not get the jobs of this one.
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=_work, args=[self._jobs], name="floorcast-file", daemon=True
        )
        self._thread.start()
        self._is_open = True
        try:
            await self.run(lambda database: database.open())
        except BaseException:
            self._end()
            raise

    async def close(self, *, is_complete: bool) -> None:
        """Write what was added, and close the file; a no-op if it is closed.

        Without `is_complete`, the next `open` treats this process as killed.
        """
        if self._thread is None:
            return
        try:
            await self.commit()
            if is_complete:
                await self.run(lambda database: database.close())
        except (FloorcastError, sqlite3.Error) as failure:
            logger.error("the data file was not closed cleanly", extra={"error": str(failure)})
        finally:
            # A disk that does not answer must not keep the process: its thread ends with it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.timeout_seconds):
                    closed = self._start(lambda database: database.abandon())
                    # The disk may answer now: nothing is written to a closed file.
                    self._is_open = False
                    await closed
            self._end()

    def _end(self) -> None:
        self._is_open = False
        for timer in (self._timer, self._watchdog):
            if timer is not None:
                timer.cancel()
        self._timer = self._watchdog = None
        self._jobs.put(None)
        self._thread = None
        self._lock.release()

    # --- writing

    def add(self, statement: Statement, *rows: Row) -> None:
        """Write rows with the next commit; a no-op unless open.

        A failing commit drops them: add a waiter if they must be added again then. In one commit
        the statements run in the order of `STATEMENTS`.
        """
        if not self._is_open:
            return
        self._batch.rows.setdefault(statement, []).extend(rows)
        self._request()

    def add_waiter(self, waiter: Waiter) -> None:
        """Tell a waiter how the next commit ends."""
        self._batch.waiters.append(waiter)
        self._request()

    def check_room(self) -> None:
        """Raise `LimitError` if too much is waiting for the disk."""
        self._check_disk()
        if len(self._batch.waiters) >= self._config.max_waiting:
            raise _overloaded("the disk is too slow: too many messages wait for it")

    @property
    def is_stuck(self) -> bool:
        """Whether the disk does not answer."""
        return self._writing is not None and self._writing.is_overdue

    async def commit(self) -> None:
        """Wait until all that was added so far is written; raises `LimitError` if it was not."""
        self._check_disk()
        commit = _Commit()
        self._batch.waiters.append(commit)
        self._hand_over()
        await commit.done

    async def run(self, work: Callable[[Database], T]) -> T:
        """Run work on the file in the writer thread, between two commits.

        Raises `FloorcastError` if the file is closed.
        """
        if not self._is_open:
            raise _closed()
        return await self._start(work)

    async def read(self, work: Callable[[Database], T]) -> T:
        """As `run`, for a client's request: raises `LimitError` if the disk does not answer."""
        self._check_disk()
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                return await self.run(work)
        except TimeoutError:
            raise _overloaded("the disk does not answer: retry later") from None
        except sqlite3.Error as error:
            raise _overloaded(f"the data file cannot be read: {error}") from None

    def _start(self, work: Callable[[Database], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, failure: BaseException | None) -> None:
            if done.cancelled():
                return
            if failure is None:
                done.set_result(result)  # type: ignore[arg-type]
            else:
                done.set_exception(failure)

        def job() -> None:
            result, failure = None, None
            try:
                result = work(self._database)
            except Exception as error:
                failure = error
            _call(loop, settle, result, failure)

        self._jobs.put(job)
        return done

    def _check_disk(self) -> None:
        if self.is_stuck:
            raise _overloaded("the disk does not answer: nothing can be kept until it does")

    def _request(self) -> None:
        """Hand the batch to the writer, now or soon."""
        if not self._is_open:
            self._fail_batch(_closed())
            return
        if self._writing is not None:
            return
        if self._config.sync == "always" or len(self._batch.waiters) >= self._last_count:
            self._hand_over()
        elif self._timer is None:
            assert self._loop is not None
            self._timer = self._loop.call_later(_GATHER_SECONDS, self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_open:
            self._fail_batch(_closed())
            return
        if self._writing is not None:
            return
        assert self._loop is not None
        batch, self._batch = self._batch, Batch()
        self._writing = batch
        self._write_began = self._loop.time()
        self._watchdog = self._loop.call_later(self._config.timeout_seconds, self._give_up, batch)
        self._jobs.put(lambda: self._write(batch))

    def _write(self, batch: Batch) -> None:
        """Write a batch, in the writer thread."""
        failure: FloorcastError | None = None
        try:
            self._database.write(batch.rows)
        except Exception as error:
            failure = self._explain(error)
        assert self._loop is not None
        _call(self._loop, self._on_written, batch, failure)

    def _fail_batch(self, failure: FloorcastError) -> None:
        batch, self._batch = self._batch, Batch()
        for waiter in batch.waiters:
            waiter.settle(failure)

    def _on_written(self, batch: Batch, failure: FloorcastError | None) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._writing = None
        assert self._loop is not None  # it has called this
        self._latency.observe(self._loop.time() - self._write_began)
        self._last_count = max(1, len(batch.waiters))
        self._report(failure)
        waiters = batch.waiters
        if failure is not None:
            # What came later has positions after those that failed.
            waiters += self._batch.waiters
            self._batch = Batch()
        for waiter in waiters:
            waiter.settle(failure)
        if self._batch.rows or self._batch.waiters:
            self._request()

    def _give_up(self, batch: Batch) -> None:
        """Refuse all that comes until the disk has answered."""
        batch.is_overdue = True
        failure = _overloaded("the disk does not answer: the message may have been kept or not")
        self._counters.add("broker.failed")
        logger.error("the disk does not answer: nothing can be kept until it does")
        for waiter in (*batch.waiters, *self._batch.waiters):
            waiter.give_up(failure)

    def _report(self, failure: FloorcastError | None) -> None:
        if failure is not None:
            self._counters.add("broker.failed")
            if not self._is_failing:
                logger.error("the data file cannot be written", extra={"error": failure.message})
        elif self._is_failing:
            logger.info("the data file can be written again")
        self._is_failing = failure is not None

    def _explain(self, error: Exception) -> FloorcastError:
        if isinstance(error, sqlite3.Error):
            if self._database.is_full(error):
                return _overloaded(
                    f"the data file has reached broker.max_bytes = {self._config.max_bytes}: "
                    "nothing more can be kept"
                )
            return _overloaded(f"the message could not be written to the disk: {error}")
        logger.error("writing to the data file failed", exc_info=error)
        return _overloaded("the message could not be written to the disk")


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *values: object) -> None:
    """Call back on the loop, from the writer thread."""
    # A disk can answer after `close` has stopped waiting for it, and the loop has ended.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *values)


def _work(jobs: Jobs) -> None:
    """Run jobs until there is a None; a job never raises."""
    while (job := jobs.get()) is not None:
        job()


def _closed() -> FloorcastError:
    return FloorcastError(ErrorCode.SERVER_DRAINING, "the data file is closed")


def _overloaded(message: str) -> LimitError:
    return LimitError(ErrorCode.SERVER_OVERLOADED, message, retry_after_ms=_RETRY_AFTER_MS)
