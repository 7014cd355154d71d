"""A link that writes down what it is given."""

from server.core.errors import FloorcastError


class RecordingLink:
    """Fills the `Link` port for tests that need no socket."""

    def __init__(self, *, deflates: bool = False) -> None:
        self.deflates = deflates
        self.buffered_bytes = 0
        self.written: list[bytes] = []
        self.ended: list[str] = []

    def write(self, frames: bytes) -> None:
        self.written.append(frames)

    def abort(self, reason: str) -> None:
        self.ended.append(reason)

    def end(self, error: FloorcastError, *, reconnect: bool, namespace: str | None = None) -> None:
        self.ended.append(error.code.value)
