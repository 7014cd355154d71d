"""Where the connection of a client stands, and who wants to know."""

import logging
from collections.abc import Callable
from enum import StrEnum

logger = logging.getLogger(__name__)


class ClientState(StrEnum):
    """Where the connection of a client stands."""

    IDLE = "IDLE"
    CONNECTING = "CONNECTING"
    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"
    CLOSED = "CLOSED"


OnState = Callable[[ClientState], None]


class StateTracker:
    """The state now, and the callbacks that are told of each change."""

    def __init__(self) -> None:
        self._current = ClientState.IDLE
        self._callbacks: list[OnState] = []

    @property
    def current(self) -> ClientState:
        """The state."""
        return self._current

    def add_callback(self, callback: OnState) -> Callable[[], None]:
        """Call this at every change; what it returns ends that."""
        self._callbacks.append(callback)

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    def change(self, state: ClientState) -> bool:
        """Change it, and tell; False where nothing changed: CLOSED is for ever."""
        if self._current in (state, ClientState.CLOSED):
            return False
        self._current = state
        for callback in tuple(self._callbacks):
            try:
                callback(state)
            except Exception:
                # An edge: what a user's callback does must not end the connection.
                logger.exception("a callback for states failed")
        return True
