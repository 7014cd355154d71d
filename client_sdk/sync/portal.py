"""An event loop in a thread of its own, for code that does not await."""

import asyncio
import atexit
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar
from weakref import WeakSet

from client_sdk.errors import ClientClosed, FloorcastError
from client_sdk.sync.callbacks import CallbackThread

ResultT = TypeVar("ResultT")

# What a client that was not closed may take of the end of a program.
_JOIN_SECONDS = 2.0


class WouldDeadlock(FloorcastError):
    """A blocking call from the client's own thread, as in a coroutine of it, would deadlock."""

    default_code = "client.would_deadlock"


class _LoopThread:
    """The thread and its loop, which know nothing of those who use them."""

    def __init__(self, name: str) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        # A daemon: a client that is never closed does not block the interpreter's exit.
        self.thread = threading.Thread(
            target=self._run_loop, args=(started,), name=name, daemon=True
        )
        # Orders submissions and `stop`: what is submitted before it is run or cancelled.
        self._lock = threading.Lock()
        self.is_stopped = False
        self.cleanup: Callable[[], Awaitable[None]] | None = None
        self.thread.start()
        self.loop = started.result()

    def _run_loop(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        # `asyncio.run` cancels the remaining tasks and closes the loop.
        asyncio.run(self._main(started))

    async def _main(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()
        if self.cleanup is not None:
            await self.cleanup()

    def submit(self, work: Coroutine[Any, Any, ResultT]) -> "Future[ResultT]":
        with self._lock:
            if self.is_stopped:
                raise ClientClosed("the client is closed")
            return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        with self._lock:
            if not self.is_stopped:
                self.is_stopped = True
                self.loop.call_soon_threadsafe(self._stop.set)


class Portal:
    """Runs coroutines and functions on its loop, and blocks until they are done.

    All that uses the loop holds the portal. If the last user drops it, or the program ends, without
    `close`, the thread ends with a `ResourceWarning` that names `owner`.
    """

    def __init__(self, name: str, owner: str = "a client") -> None:
        self._owner = owner
        self._loop_thread = _LoopThread(name)
        self.callbacks = CallbackThread(f"{name}-callbacks")
        _open_portals.add(self)

    def call(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine and return its result; Ctrl-C cancels it.

        Raises `ClientClosed`, or `WouldDeadlock` on the portal's own thread.
        """
        try:
            self._check_thread()
            future = self._loop_thread.submit(work)
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

    def set_cleanup(self, cleanup: Callable[[], Awaitable[None]]) -> None:
        """Await this before the loop ends, however that comes about."""
        self._loop_thread.cleanup = cleanup

    def close(self) -> None:
        """End the thread; calls that wait in other threads raise `ClientClosed`."""
        self._check_thread()
        self._loop_thread.stop()
        self._loop_thread.thread.join()
        self.callbacks.close()

    def end_forgotten(self) -> None:
        """End the thread of a portal that nobody has closed, and warn; does not wait."""
        if not self._loop_thread.is_stopped:
            self._loop_thread.stop()
            self.callbacks.close(wait=False)
            warnings.warn(
                f"{self._owner} was not closed: use `with`, or call close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, but not for longer."""
        self._loop_thread.thread.join(seconds)

    def __del__(self) -> None:
        # Without the thread the constructor has failed.
        if hasattr(self, "callbacks"):
            self.end_forgotten()

    def _check_thread(self) -> None:
        if threading.current_thread() is self._loop_thread.thread:
            raise WouldDeadlock("a coroutine must not make blocking calls to its own client")


_open_portals: WeakSet[Portal] = WeakSet()


@atexit.register
def _end_forgotten_portals() -> None:
    for portal in tuple(_open_portals):
        portal.end_forgotten()
        portal.join(_JOIN_SECONDS)
