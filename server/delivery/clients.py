"""One joined connection as delivery sees it."""

from typing import TYPE_CHECKING

from server.core.frames import deflate_text_frames
from server.core.outbox import Outbox
from server.ports import Link

if TYPE_CHECKING:
    from server.delivery.channel import Channel

# What a transport raises that has ended and has not said so yet.
BROKEN = (OSError, RuntimeError)


class Client:
    """The way to it, what it hears, and what it has yet to get."""

    __slots__ = ("asked", "channels", "id", "link", "outbox")

    def __init__(self, connection_id: str, link: Link) -> None:
        self.id = connection_id
        self.link = link
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

    def send(self, frames: bytes, deflated: bytes | None = None) -> bool:
        """Write to it; False where the way is broken, and then it is ended.

        Who sends the same to many hands over what it is `deflated`.
        """
        link = self.link
        try:
            link.write((deflated or deflate_text_frames(frames)) if link.deflates else frames)
        except BROKEN:
            link.abort("a write failed")
            return False
        return True
