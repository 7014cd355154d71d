"""A thread for the user's callbacks, in which they may block and call the client."""

import asyncio
import functools
import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import ParamSpec

from client_sdk.connection.failures import FailureLog
from client_sdk.reading.streams import OnItem

logger = logging.getLogger(__name__)

P = ParamSpec("P")
# Items of a stream wait for their callback, so that only changes of a state can be so many.
_MAX_WAITING = 1000
# A callback that hangs does not keep the program from ending.
_JOIN_SECONDS = 2.0


class CallbackThread:
    """Runs functions one after another; its thread starts with the first."""

    def __init__(self, name: str) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()
        self._is_started = False

    def awaited(self, callback: OnItem) -> Callable[[object], Awaitable[None]]:
        """A function that runs the callback and waits for it; a coroutine runs on the loop."""
        if inspect.iscoroutinefunction(callback):
            return callback

        async def call(item: object) -> None:
            result = await self._call(lambda: callback(item))
            if inspect.isawaitable(result):
                await result

        return call

    def posted(self, callback: Callable[P, object]) -> Callable[P, None]:
        """A function that runs the callback soon, and does not wait for it."""

        failures = FailureLog(logger, "a callback")

        @functools.wraps(callback)
        def post(*args: P.args, **kwargs: P.kwargs) -> None:
            def call() -> None:
                try:
                    callback(*args, **kwargs)
                except Exception as error:
                    # An edge: a user's callback must not end the thread.
                    failures.record(error)

            self._put(call)

        return post

    async def _call(self, function: Callable[[], object]) -> object:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()

        def settle(result: object, error: Exception | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)

        def call() -> None:
            result, raised = None, None
            try:
                result = function()
            except Exception as error:
                raised = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, raised)

        self._put(call)
        return await done

    def _put(self, function: Callable[[], object]) -> None:
        with self._lock:
            if not self._is_started:
                self._is_started = True
                self._thread.start()
        try:
            self._queue.put_nowait(function)
        except queue.Full:
            logger.warning("%d callbacks wait already: one is dropped", _MAX_WAITING)

    def _run(self) -> None:
        while (function := self._queue.get()) is not None:
            function()

    def close(self, *, wait: bool = True) -> None:
        """Run what is queued, then end the thread; wait for that, but not for long."""
        with self._lock:
            if not self._is_started:
                return
        try:
            self._queue.put(None, block=wait, timeout=_JOIN_SECONDS)
        except queue.Full:
            logger.warning("a callback hangs: its thread is left behind")
            return
        if wait and threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)
