"""The client's connection state, and gates that callers wait at."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import cast

from client_sdk.connection.failures import FailureLog
from client_sdk.errors import FloorcastError

logger = logging.getLogger(__name__)


class ClientState(StrEnum):
    """The state of a client's connection."""

    IDLE = "IDLE"
    CONNECTING = "CONNECTING"
    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"
    CLOSED = "CLOSED"


_OnStateAndReason = Callable[[ClientState, FloorcastError | None], None]
# The second argument is the reason: why the client is offline or closed, None otherwise.
OnState = Callable[[ClientState], None] | _OnStateAndReason


class StateTracker:
    """Holds the current state and its reason, and calls back on each change."""

    def __init__(self) -> None:
        self._current = ClientState.IDLE
        self._callbacks: list[_OnStateAndReason] = []
        self._failures = FailureLog(logger, "a state callback")
        # Why the client is offline or closed; None otherwise.
        self.reason: FloorcastError | None = None

    @property
    def current(self) -> ClientState:
        """The current state."""
        return self._current

    def add_callback(self, callback: OnState) -> Callable[[], None]:
        """Call back on each change; call the returned function to stop."""
        call = with_reason(callback)
        self._callbacks.append(call)

        def remove() -> None:
            if call in self._callbacks:
                self._callbacks.remove(call)

        return remove

    def change(self, state: ClientState, reason: FloorcastError | None = None) -> bool:
        """Change the state; False if nothing changed. CLOSED never changes."""
        if self._current in (state, ClientState.CLOSED):
            return False
        self._current = state
        if state is not ClientState.CONNECTING:
            self.reason = reason
        for callback in tuple(self._callbacks):
            try:
                callback(state, reason)
            except Exception as error:
                # An edge: a user's callback must not end the connection.
                self._failures.record(error)
        return True


def with_reason(callback: OnState) -> _OnStateAndReason:
    """A callback that takes the reason too, from one that may take the state alone."""
    try:
        inspect.signature(callback).bind(ClientState.IDLE, None)
    except (TypeError, ValueError):
        state_only = cast(Callable[[ClientState], None], callback)
        return lambda state, reason: state_only(state)
    return cast(_OnStateAndReason, callback)


class Gate:
    """Lets callers through while it is open; once failed, raises its error for all of them."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.error: FloorcastError | None = None

    @property
    def is_open(self) -> bool:
        """True if `wait_open` returns at once."""
        return self.error is None and self._open.is_set()

    def open(self) -> None:
        """Let callers through; no-op once failed."""
        if self.error is None:
            self._open.set()

    def close(self) -> None:
        """Make callers wait; no-op once failed."""
        if self.error is None:
            self._open.clear()

    def fail(self, error: FloorcastError) -> None:
        """Raise `error` in all callers from now on; the first error counts."""
        if self.error is None:
            self.error = error
            self._open.set()

    async def wait_open(self) -> None:
        """Wait until it is open; raises its error once it has failed."""
        while not self.is_open:
            if self.error is not None:
                raise self.error.clone()
            await self._open.wait()
