"""Fetches tokens from wherever the user keeps them, within a time limit."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable

from client_sdk.errors import TokenUnavailable

TokenSource = str | Callable[[], str | Awaitable[str]] | None


class TokenFetcher:
    """A string stays what it is; a function is asked for each attempt."""

    def __init__(self, source: TokenSource, timeout_seconds: float) -> None:
        self._source = source
        self._timeout_seconds = timeout_seconds

    @property
    def is_renewable(self) -> bool:
        """Whether asking again may give another token."""
        return callable(self._source)

    async def fetch(self) -> str | None:
        """A token; raises `TokenUnavailable` where there is none in time."""
        source = self._source
        if source is None or isinstance(source, str):
            return source
        token: object
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if inspect.iscoroutinefunction(source):
                    token = await source()
                else:
                    token = await _call_in_thread(source)
                    if inspect.isawaitable(token):
                        token = await token
        except TimeoutError:
            raise TokenUnavailable(f"no token came within {self._timeout_seconds:g} s") from None
        except Exception as error:
            raise TokenUnavailable("the function that gives tokens failed") from error
        if not isinstance(token, str):
            raise TokenUnavailable("the function that gives tokens gave something else")
        return token


async def _call_in_thread(
    source: Callable[[], str | Awaitable[str]],
) -> object:
    """Call a function that may block; one that hangs for ever keeps no loop and no exit waiting.

    A thread of its own, not the loop's executor: those stay, and are joined at exit.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[object] = loop.create_future()

    def settle(token: object, error: Exception | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(token)

    def call() -> None:
        token, error = None, None
        try:
            token = source()
        except Exception as failed:
            error = failed
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, token, error)

    threading.Thread(target=call, name="floorcast-token", daemon=True).start()
    return await result
