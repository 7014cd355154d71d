"""What a connection asks of the thing that carries its bytes, and who is told about them."""

from typing import Protocol


class Carrier(Protocol):
    """A transport as the connection above it sees it: a WebSocket, or polling requests."""

    @property
    def deflates(self) -> bool:
        """Whether compression was negotiated."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were written and have not left this process."""

    @property
    def taken_bytes(self) -> int:
        """Bytes that have left since the start; it stands still when the client does not read."""

    def write(self, frames: bytes) -> None:
        """Send one or more complete text frames; after the end this is nothing."""

    def pause_reading(self) -> None:
        """Let the client's bytes wait in the network for a while."""

    def resume_reading(self) -> None:
        """Take the client's bytes again."""

    def close(self, close_code: int) -> None:
        """Say goodbye on this layer, send what is buffered, and end."""

    def abort(self) -> None:
        """End now; what is buffered is lost."""


class CarrierEvents(Protocol):
    """Who hears a carrier: a connection, or the probe of an upgrade."""

    def on_text(self, text: str) -> None:
        """One Engine.IO packet came."""

    def on_control_frame(self) -> None:
        """A control frame came that costs us time and means nothing to us."""

    def on_close_request(self) -> None:
        """The client wants to end the WebSocket."""

    def on_violation(self, reason: str, close_code: int) -> None:
        """The client broke the protocol; nothing after this point was read."""

    def on_clogged(self) -> None:
        """So much waits that the client has to read before it gets more."""

    def on_writable(self) -> None:
        """The client has read most of what waited for it."""

    def on_lost(self) -> None:
        """The carrier has ended, whoever ended it."""
