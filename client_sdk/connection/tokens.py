"""Fetches tokens from the user's source, and schedules their renewal."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable

from client_sdk.connection.backoff import Backoff, BackoffConfig
from client_sdk.errors import ConfigError, TokenUnavailable

TokenSource = str | Callable[[], str | Awaitable[str]] | None

# The server warns half a minute ahead: time for several attempts, spread over the clients.
_RETRY_BACKOFF = BackoffConfig(least_seconds=0.2, first_seconds=1.0, most_seconds=8.0)


class TokenFetcher:
    """Returns a string source as it is; calls a function for every token."""

    def __init__(self, source: TokenSource, timeout_seconds: float) -> None:
        self._source = source
        self._timeout_seconds = timeout_seconds

    @property
    def is_renewable(self) -> bool:
        """True if another fetch can return another token."""
        return callable(self._source)

    async def fetch(self) -> str | None:
        """A token, or None without a source; raises `TokenUnavailable`."""
        source = self._source
        if source is None:
            return None
        if isinstance(source, str):
            return source.strip()
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
            raise TokenUnavailable(
                f"the token function took longer than {self._timeout_seconds:g} s"
            ) from None
        except Exception as error:
            raise TokenUnavailable(f"the token function failed: {error!r}") from error
        return _validated(token, "the token function must return a string")


def check_source(source: object) -> None:
    """Raise `ConfigError` unless this is a string, a function or None."""
    if source is not None and not callable(source):
        _validated(source, "the token must be a string or a function that returns one")


def _validated(token: object, rule: str) -> str:
    """A token without the white space that files and variables end with."""
    if isinstance(token, str):
        return token.strip()
    hint = ": decode the bytes" if isinstance(token, bytes | bytearray) else ""
    raise ConfigError(f"{rule}, not {type(token).__name__}{hint}")


async def _call_in_thread(source: Callable[[], str | Awaitable[str]]) -> object:
    """Call a function that may block, in a daemon thread of its own.

    The loop's executor would join a hanging function at exit.
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
        except Exception as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, token, error)

    threading.Thread(target=call, name="floorcast-token", daemon=True).start()
    return await result


class TokenRenewal:
    """Schedules the renewal of one connection's tokens; performs no I/O.

    The caller tries a renewal when `is_due`, and reports the outcome for each namespace.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._retry_backoff = backoff.with_config(_RETRY_BACKOFF)
        # Per namespace, by the loop's clock.
        self._expires_at: dict[str, float] = {}
        # None if no namespace needs a newer token, or if none can get one in time.
        self.next_attempt_at: float | None = None

    def schedule(self, namespace: str, expires_at: float, now: float) -> None:
        """Renew a namespace's token before it expires; the first attempt is due at once."""
        self._expires_at[namespace] = expires_at
        self._retry_backoff = self._backoff.with_config(_RETRY_BACKOFF)
        self.next_attempt_at = now

    def is_due(self, now: float) -> bool:
        """True if an attempt is due."""
        return self.next_attempt_at is not None and self.next_attempt_at <= now

    def pending(self) -> tuple[tuple[str, float], ...]:
        """The namespaces that need a newer token, and when theirs expires."""
        return tuple(sorted(self._expires_at.items()))

    def set_renewed(self, namespace: str, expires_at: float) -> None:
        """Record a newer token than that of `expires_at`; it may be about to expire itself."""
        if self._expires_at.get(namespace) == expires_at:
            del self._expires_at[namespace]
        if not self._expires_at:
            self.next_attempt_at = None

    def cancel(self) -> None:
        """Give up all renewals."""
        self._expires_at.clear()
        self.next_attempt_at = None

    def schedule_retry(self, now: float) -> None:
        """Try again after a pause, for the tokens that do not expire before that."""
        retry_at = now + self._retry_backoff.next_seconds()
        self._expires_at = {
            name: expires_at
            for name, expires_at in self._expires_at.items()
            if expires_at > retry_at
        }
        self.next_attempt_at = retry_at if self._expires_at else None
