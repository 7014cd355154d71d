"""An event loop in a thread of its own, for code that does not await."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from client_sdk.errors import ClientClosed, FloorcastError

ResultT = TypeVar("ResultT")


class WouldDeadlock(FloorcastError):
    """A blocking call from the client's own thread, such as in a callback, would deadlock."""

    default_code = "client.would_deadlock"


class Portal:
    """Runs coroutines and functions on its loop, and blocks until they are done."""

    def __init__(self, name: str) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        # A daemon: a client that is never closed does not block the interpreter's exit.
        self._thread = threading.Thread(
            target=self._run_loop, args=(started,), name=name, daemon=True
        )
        # Orders submissions and `close`: what is submitted before it is run or cancelled.
        self._lock = threading.Lock()
        self._closed = False
        self._thread.start()
        self._loop = started.result()

    def _run_loop(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        # `asyncio.run` cancels the remaining tasks and closes the loop.
        asyncio.run(self._main(started))

    async def _main(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def call(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine and return its result; Ctrl-C cancels it.

        Raises `ClientClosed`, or `WouldDeadlock` on the portal's own thread.
        """
        try:
            future = self._submit(work)
        except FloorcastError:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("the client is closed") from None
        except BaseException:
            future.cancel()
            raise

    def run(self, work: Callable[[], ResultT]) -> ResultT:
        """Run a function on the loop's thread and return its result; raises as `call` does."""

        async def call_work() -> ResultT:
            return work()

        return self.call(call_work())

    def close(self) -> None:
        """End the thread; calls that wait in other threads raise `ClientClosed`."""
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
                raise ClientClosed("the client is closed")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise WouldDeadlock("a callback must not make blocking calls to its own client")
