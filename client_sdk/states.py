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


class States:
    """The state now, and the callbacks that are told of each change."""

    def __init__(self) -> None:
        self._now = ClientState.IDLE
        self._watchers: list[OnState] = []

    @property
    def now(self) -> ClientState:
        """The state."""
        return self._now

    def watch(self, callback: OnState) -> Callable[[], None]:
        """Call this at every change; what it returns ends that."""
        self._watchers.append(callback)

        def end() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return end

    def move(self, state: ClientState) -> bool:
        """Change it, and tell; False where nothing changed: CLOSED is for ever."""
        if self._now in (state, ClientState.CLOSED):
            return False
        self._now = state
        for callback in tuple(self._watchers):
            try:
                callback(state)
            except Exception:
                # An edge: what a user's callback does must not end the connection.
                logger.exception("a callback for states failed")
        return True
