"""The ports between a connection and its carrier: a WebSocket, or polling requests."""

from collections.abc import Callable
from typing import Protocol


class Carrier(Protocol):
    """The transport of a connection.

    It must keep the order of writes and call `CarrierEvents.on_lost` exactly once. Example:
    `carrier.write(text_frame(b"2"))` sends a ping over either transport.
    """

    @property
    def deflates(self) -> bool:
        """Whether the client negotiated permessage-deflate."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes that are written and have not left this process."""

    @property
    def taken_bytes(self) -> int:
        """Bytes that have left this process; constant while the client does not read."""

    @property
    def plain_write(self) -> Callable[[bytes], None]:
        """The cheapest way to `write` while the client reads; `taken_bytes` may not count it."""

    def write(self, frames: bytes) -> None:
        """Send one or more complete text frames; a no-op once closed."""

    def pause_reading(self) -> None:
        """Stop reading from the client, so that its bytes wait in the network."""

    def resume_reading(self) -> None:
        """Read from the client again."""

    def limit_messages(self, max_bytes: int) -> None:
        """Refuse longer messages of the client from now on."""

    def close(self, close_code: int) -> None:
        """Send what is buffered and a WebSocket close frame, then close."""

    def abort(self) -> None:
        """Close now; buffered bytes are lost."""


class CarrierEvents(Protocol):
    """The receiver of a carrier's events: a connection, or the probe of an upgrade.

    The carrier calls these in the order of the events. An implementation must not await or
    block: reading stops meanwhile.
    """

    def on_text(self, text: str) -> None:
        """Handle one Engine.IO packet."""

    def on_control_frame(self) -> None:
        """Count a WebSocket ping, pong or other frame that carries no packet."""

    def on_close_request(self) -> None:
        """Close: the client sent a close frame (RFC 6455, 5.5.1)."""

    def on_violation(self, reason: str, close_code: int) -> None:
        """Close with this code: the client broke the protocol; its later bytes are dropped."""

    def on_clogged(self) -> None:
        """Stop writing: the buffer is over the clog limit."""

    def on_writable(self) -> None:
        """Resume writing: the client has read most of the buffer."""

    def on_lost(self) -> None:
        """Release the carrier: it is closed, by either side."""
