"""One joined connection as delivery sees it."""

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

# What a transport raises that has ended and has not said so yet.
WRITE_ERRORS = (OSError, RuntimeError)


class Client:
    """The way to it, what it hears, and what it has yet to get."""

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
        # Where its events have offsets: how far it had come in each topic, at any of them.
        self.checkpoints = checkpoints
        # What was said to it alone.
        self.push_log: PushLog | None = None
        # The last write of the node while it was here; set when it is cut off.
        self.last_serial = 0
        # The tier that it is in, in each of its channels; and where it asked for a pace, which.
        self.channels: dict[Channel, int] = {}
        self.requested_ms: dict[Channel, int] = {}
        # Made when it is first needed: most clients never fall behind.
        self.backlog: Backlog[Channel] | None = None

    def interval_for(self, channel: "Channel") -> int:
        """How often it is to be served there: as it asked, or as seldom as it has to be."""
        asked = self.requested_ms.get(channel, 0)
        if self.backlog is None or not channel.state.merges:
            return asked
        return max(asked, self.backlog.interval_ms)

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
        """Remember how far it has come in a topic from this write on, where it may ask for that."""
        if self.checkpoints is None:
            return
        mark = Checkpoint(serial, seq, steps, shared_index)
        if lag is not None and lag.has_pending:
            mark = mark._replace(
                pushed_serial=lag.pushed_serial,
                needs_snapshot=lag.needs_snapshot,
                needs_status=lag.needs_status,
            )
        self.checkpoints.add(channel, mark)

    def encode_events(self, events: list[bytes], offsets: Offsets) -> tuple[bytes, int]:
        """Events for this client alone, and the number of the first of them."""
        if self.checkpoints is None:
            return b"".join(map(plain_frame, events)), offsets.last_serial
        first = offsets.allocate(len(events))
        return b"".join(map(offsets.frame, events, range(first, offsets.last_serial + 1))), first

    def send(self, frames: bytes, deflated: bytes | None = None) -> bool:
        """Write to it; False where the way is broken, and then it is ended.

        Who sends the same to many hands over what it is `deflated`.
        """
        link = self.link
        try:
            link.write((deflated or deflate_text_frames(frames)) if link.deflates else frames)
        except WRITE_ERRORS:
            self._deferred_close.abort(link)
            return False
        return True
