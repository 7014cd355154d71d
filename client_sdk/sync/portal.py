"""A loop in a thread of its own, for code that does not await."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from client_sdk.errors import ClientClosed, FloorcastError

ResultT = TypeVar("ResultT")


class WouldDeadlock(FloorcastError):
    """A callback runs on the client's own thread: to wait there for the client is for ever."""

    default_code = "client.would_deadlock"


class Portal:
    """Runs what it is given on its loop, and waits; `close` leaves no thread behind."""

    def __init__(self, name: str) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        # A daemon: a client that nobody closed keeps no interpreter from its end.
        self._thread = threading.Thread(target=self._run, args=(started,), name=name, daemon=True)
        # Orders what is given and the end: what comes before the end is done or cancelled.
        self._lock = threading.Lock()
        self._closed = False
        self._thread.start()
        self._loop = started.result()

    def _run(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        # It cancels what is left, and closes the loop.
        asyncio.run(self._main(started))

    async def _main(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def call(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """The result of a coroutine; Ctrl-C while it waits cancels it."""
        try:
            future = self._submit(work)
        except FloorcastError:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def run(self, work: Callable[[], ResultT]) -> ResultT:
        """The result of a function that has to run where the client lives."""

        async def there() -> ResultT:
            return work()

        return self.call(there())

    def close(self) -> None:
        """End the thread; what still waits in others gets `ClientClosed`."""
        self._check_thread()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _submit(self, work: Coroutine[Any, Any, ResultT]) -> "Future[ResultT]":
        self._check_thread()
        with self._lock:
            if self._closed:
                raise ClientClosed("the client was closed")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise WouldDeadlock("a callback of the client must not wait for the client")
