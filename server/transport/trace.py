"""Traces connections at DEBUG: direction, kind and size of each packet, never what it carries."""

import logging
from collections.abc import Callable

from server.core.wire.frames import split_text_frames

logger = logging.getLogger(__name__)

# Engine.IO protocol, "Packet encoding"; Socket.IO protocol, "Packet format".
_ENGINE = dict(
    zip("0123456", ("open", "close", "ping", "pong", "message", "upgrade", "noop"), strict=True)
)
_SOCKET = dict(
    zip(
        "0123456",
        ("CONNECT", "DISCONNECT", "EVENT", "ACK", "CONNECT_ERROR", "BINARY_EVENT", "BINARY_ACK"),
        strict=True,
    )
)

Write = Callable[[bytes], None]


def is_tracing() -> bool:
    """True if packets are traced."""
    return logger.isEnabledFor(logging.DEBUG)


def kind_of(packet: str) -> str:
    """The type of an Engine.IO packet; for a message, the type of the Socket.IO packet in it."""
    kind = _ENGINE.get(packet[:1], "unknown")
    return _SOCKET.get(packet[1:2], "unknown") if kind == "message" else kind


def log_received(connection: str, packet: str) -> None:
    """Log a packet that a client has sent."""
    fields = {"connection": connection, "size": len(packet)}
    logger.debug("received %s", kind_of(packet), extra=fields)


def traced(connection: str, write: Write) -> Write:
    """A `write` that logs what it sends."""

    def log_and_write(frames: bytes) -> None:
        try:
            kinds = [kind_of(packet.decode()) for packet in split_text_frames(frames)]
        except ValueError:
            kinds = ["compressed"]
        logger.debug(
            "sent %s", ", ".join(kinds), extra={"connection": connection, "size": len(frames)}
        )
        write(frames)

    return log_and_write
