"""Represents one joined connection in the delivery layer."""

from typing import TYPE_CHECKING

from server.core.log.backlog import Backlog, Lag
from server.core.recovery.checkpoints import Checkpoint, Checkpoints, SerialIndex
from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import PushLog
from server.core.wire.frames import deflate_text_frames
from server.delivery.deferred_close import DeferredClose
from server.ports import Link

if TYPE_CHECKING:
    from server.delivery.channel import Channel

# Raised by a transport that has closed but has not reported it yet.
WRITE_ERRORS = (OSError, RuntimeError)


class Client:
    """A client's link, its subscriptions, and what it has yet to receive."""

    __slots__ = (
        "_deferred_close",
        "backlog",
        "channels",
        "checkpoints",
        "id",
        "last_serial",
        "link",
        "push_log",
        "requested_ms",
    )

    def __init__(
        self,
        connection_id: str,
        link: Link,
        checkpoints: "Checkpoints[Channel] | None",
        deferred_close: DeferredClose,
    ) -> None:
        self.id = connection_id
        self.link = link
        self._deferred_close = deferred_close
        # Its position in each channel at each write; None if its events have no offsets.
        self.checkpoints = checkpoints
        # Pushes sent to this client alone, kept for a resume.
        self.push_log: PushLog | None = None
        # The node's last write when the client was parked.
        self.last_serial = 0
        # The interval granted in each channel, and the one requested if any.
        self.channels: dict[Channel, int] = {}
        self.requested_ms: dict[Channel, int] = {}
        # Created on first use: most clients never fall behind.
        self.backlog: Backlog[Channel] | None = None

    def interval_for(self, channel: "Channel") -> int:
        """The interval to serve the client at: as requested, or longer if it reads slowly."""
        requested = self.requested_ms.get(channel, 0)
        if self.backlog is None or not channel.state.merges:
            return requested
        return max(requested, self.backlog.interval_ms)

    def add_checkpoint(
        self,
        channel: "Channel",
        serial: int,
        seq: int,
        *,
        steps: int = 0,
        shared_index: SerialIndex | None = None,
        lag: Lag | None = None,
    ) -> None:
        """Record the client's position in a channel from this write on; no-op without offsets."""
        if self.checkpoints is None:
            return
        checkpoint = Checkpoint(serial, seq, steps, shared_index)
        if lag is not None and lag.has_pending:
            checkpoint = checkpoint._replace(
                pushed_serial=lag.pushed_serial,
                needs_snapshot=lag.needs_snapshot,
                needs_status=lag.needs_status,
            )
        self.checkpoints.add(channel, checkpoint)

    def encode_events(self, events: list[bytes], offsets: Offsets) -> tuple[bytes, int]:
        """Encode events for this client alone; the frames and the serial of the first event."""
        if self.checkpoints is None:
            return b"".join(map(plain_frame, events)), offsets.last_serial
        first = offsets.allocate(len(events))
        return b"".join(map(offsets.frame, events, range(first, offsets.last_serial + 1))), first

    def send(self, frames: bytes, deflated: bytes | None = None) -> bool:
        """Write to the client; on failure abort its connection and return False.

        Pass `deflated` if the same frames, already compressed, go to many clients.
        """
        link = self.link
        try:
            link.write((deflated or deflate_text_frames(frames)) if link.deflates else frames)
        except WRITE_ERRORS:
            self._deferred_close.abort(link)
            return False
        return True
