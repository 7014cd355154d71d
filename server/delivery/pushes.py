"""What is said besides the messages: a feed's state, and words to everybody or to one client."""

from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import Saying, Told
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.conflation import Paces
from server.delivery.connections import Roster
from server.delivery.deferred_close import Endings
from server.delivery.flusher import Turn
from server.delivery.slow_consumers import Laggards

# What is said to one client alone, and may have to be said again.
_MAX_TOLD = 100
_MAX_TOLD_BYTES = 64 * 1024


class Sayings:
    """Written at once, behind what waits: what is said has no position of its own."""

    def __init__(
        self,
        *,
        roster: Roster,
        turn: Turn,
        paces: Paces,
        laggards: Laggards,
        offsets: Offsets,
        endings: Endings,
        buffer_bytes: int,
    ) -> None:
        self._roster = roster
        self._turn = turn
        self._paces = paces
        self._laggards = laggards
        self._offsets = offsets
        self._endings = endings
        self._buffer_bytes = buffer_bytes

    def say_status(self, channel: Channel) -> None:
        """Tell all who listen whether the topic's feed speaks."""
        self._turn.flush_channel(channel)
        event = channel.status()
        if event is None:
            return
        channel.status_serial = serial = self._offsets.take()
        frames = (plain_frame(event), self._offsets.frame(event, serial))
        with self._endings:
            self._say_status(channel, frames)

    def _say_status(self, channel: Channel, frames: tuple[bytes, bytes]) -> None:
        for client in channel.clients():
            if not client.link.clogged:
                client.send(frames[client.trail is not None])
                continue
            pace = client.channels[channel]
            lag = channel.part(client, pace)
            lag.needs_status = True
            channel.join(client, pace, lag)
            if pace:
                self._paces.due[pace][channel] = None
                self._laggards.watch(client)
            else:
                self._laggards.fall(client, channel, lag)

    def say(self, channel: Channel, event: bytes, *, skip: frozenset[str] = frozenset()) -> int:
        """Send something that is worth nothing later to all who can take it now; who could not.

        What waits goes first, so that it never stands before a message that is older.
        """
        self._turn.flush_channel(channel)
        seq = channel.view.position.seq
        frames = (plain_frame(event), self._offsets.frame(event, self._offsets.last))
        passed_over = 0
        with self._endings:
            for client, place in channel.places():
                if client.id in skip:
                    continue
                if place == seq and not client.link.clogged:
                    client.send(frames[client.trail is not None])
                else:
                    passed_over += 1
        return passed_over

    def tell(self, channel: Channel, event: bytes, *, skip: frozenset[str] = frozenset()) -> None:
        """Send something that everybody has to hear, though it has no place of its own."""
        self._turn.flush_channel(channel)
        serial = self._offsets.take()
        if channel.told is not None:
            channel.told.append(Saying(serial, channel.view.position.seq, event, skip))
        frames = (plain_frame(event), self._offsets.frame(event, serial))
        with self._endings:
            for client in channel.clients():
                if client.id not in skip and not self._is_told_later(client, channel):
                    self._force(client, frames[client.trail is not None])

    def _is_told_later(self, client: Client, channel: Channel) -> bool:
        """Whether it is being told what it missed, in order: this comes with the rest."""
        lag = channel.tier(client.channels[channel]).odd.get(client)
        return lag is not None and lag.told is not None

    def tell_one(self, connection_id: str, event: bytes) -> bool:
        """Send something to one client that it has to hear; False where it is not here now."""
        client = self._roster.clients.get(connection_id)
        if client is None:
            client = self._roster.parked.get(connection_id)
            if client is not None:
                self._remember(client, event)
            return False
        if client.trail is None:
            return self._force(client, plain_frame(event))
        return self._force(client, self._offsets.frame(event, self._remember(client, event)))

    def ask_one(self, connection_id: str, frame: bytes) -> bool:
        """Send a frame as it is to one client, once; False where it is not here."""
        client = self._roster.clients.get(connection_id)
        return client is not None and self._force(client, frame)

    def repeat(self, client: Client, serial: int) -> None:
        """Say again to one client what was said to it after this."""
        if client.told is not None:
            # With a new number each: cut off once more, it must not get both.
            for event in client.told.take_back(serial):
                self.tell_one(client.id, event)

    def _remember(self, client: Client, event: bytes) -> int:
        if client.told is None:
            client.told = Told(max_count=_MAX_TOLD, max_bytes=_MAX_TOLD_BYTES)
        serial = self._offsets.take()
        client.told.append(Saying(serial, 0, event))
        return serial

    def _force(self, client: Client, frame: bytes) -> bool:
        """Write though its way is full, unless too much waits already: then it is let go."""
        if client.link in self._endings:
            # It would have this, and not what it has to go for.
            return False
        if client.link.buffered_bytes + len(frame) > self._buffer_bytes:
            self._laggards.let_go(client)
            return False
        return client.send(frame)
