"""One joined connection as delivery sees it."""

from typing import TYPE_CHECKING

from server.core.log.backlog import Lag, Outbox
from server.core.recovery.checkpoints import Mark, Trail, Writes
from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import Told
from server.core.wire.frames import deflate_text_frames
from server.delivery.deferred_close import Endings
from server.ports import Link

if TYPE_CHECKING:
    from server.delivery.channel import Channel

# What a transport raises that has ended and has not said so yet.
BROKEN = (OSError, RuntimeError)


class Client:
    """The way to it, what it hears, and what it has yet to get."""

    __slots__ = (
        "_endings",
        "asked",
        "channels",
        "id",
        "last_serial",
        "link",
        "outbox",
        "told",
        "trail",
    )

    def __init__(
        self,
        connection_id: str,
        link: Link,
        trail: "Trail[Channel] | None",
        endings: Endings,
    ) -> None:
        self.id = connection_id
        self.link = link
        self._endings = endings
        # Where its events have offsets: how far it had come in each topic, at any of them.
        self.trail = trail
        # What was said to it alone.
        self.told: Told | None = None
        # The last write of the node while it was here; set when it is cut off.
        self.last_serial = 0
        # The tier that it is in, in each of its channels; and where it asked for a pace, which.
        self.channels: dict[Channel, int] = {}
        self.asked: dict[Channel, int] = {}
        # Made when it is first needed: most clients never fall behind.
        self.outbox: Outbox[Channel] | None = None

    def pace(self, channel: "Channel") -> int:
        """How often it is to be served there: as it asked, or as seldom as it has to be."""
        asked = self.asked.get(channel, 0)
        if self.outbox is None or not channel.view.merges:
            return asked
        return max(asked, self.outbox.interval_ms)

    def note(
        self,
        channel: "Channel",
        serial: int,
        seq: int,
        *,
        steps: int = 0,
        follows: Writes | None = None,
        owes: Lag | None = None,
    ) -> None:
        """Remember how far it has come in a topic from this write on, where it may ask for that."""
        if self.trail is None:
            return
        mark = Mark(serial, seq, steps, follows)
        if owes is not None and owes.owes:
            mark = mark._replace(
                told=owes.told, needs_snapshot=owes.needs_snapshot, needs_status=owes.needs_status
            )
        self.trail.note(channel, mark)

    def frames(self, events: list[bytes], offsets: Offsets) -> tuple[bytes, int]:
        """Events for this client alone, and the number of the first of them."""
        if self.trail is None:
            return b"".join(map(plain_frame, events)), offsets.last
        first = offsets.take(len(events))
        return b"".join(map(offsets.frame, events, range(first, offsets.last + 1))), first

    def send(self, frames: bytes, deflated: bytes | None = None) -> bool:
        """Write to it; False where the way is broken, and then it is ended.

        Who sends the same to many hands over what it is `deflated`.
        """
        link = self.link
        try:
            link.write((deflated or deflate_text_frames(frames)) if link.deflates else frames)
        except BROKEN:
            self._endings.break_off(link)
            return False
        return True
