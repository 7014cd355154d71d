"""What is said besides the messages: a feed's state, and words to everybody or to one client."""

from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import LoggedPush, PushLog
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.conflation import ConflatedTiers
from server.delivery.connections import ClientRegistry
from server.delivery.deferred_close import DeferredClose
from server.delivery.flusher import Flusher
from server.delivery.slow_consumers import SlowConsumers

# What is said to one client alone, and may have to be said again.
_MAX_PUSHES = 100
_MAX_PUSH_BYTES = 64 * 1024


class Pushes:
    """Written at once, behind what waits: what is said has no position of its own."""

    def __init__(
        self,
        *,
        registry: ClientRegistry,
        flusher: Flusher,
        conflated_tiers: ConflatedTiers,
        slow_consumers: SlowConsumers,
        offsets: Offsets,
        deferred_close: DeferredClose,
        buffer_bytes: int,
    ) -> None:
        self._registry = registry
        self._flusher = flusher
        self._conflated_tiers = conflated_tiers
        self._slow_consumers = slow_consumers
        self._offsets = offsets
        self._deferred_close = deferred_close
        self._buffer_bytes = buffer_bytes

    def broadcast_status(self, channel: Channel) -> None:
        """Tell all who listen whether the topic's feed speaks."""
        self._flusher.flush_channel(channel)
        event = channel.status()
        if event is None:
            return
        channel.status_serial = serial = self._offsets.allocate()
        frames = (plain_frame(event), self._offsets.frame(event, serial))
        with self._deferred_close:
            self._send_status(channel, frames)

    def _send_status(self, channel: Channel, frames: tuple[bytes, bytes]) -> None:
        for client in channel.clients():
            if not client.link.clogged:
                client.send(frames[client.checkpoints is not None])
                continue
            pace = client.channels[channel]
            lag = channel.leave(client, pace)
            lag.needs_status = True
            channel.join(client, pace, lag)
            if pace:
                self._conflated_tiers.due[pace][channel] = None
                self._slow_consumers.add(client)
            else:
                self._slow_consumers.add_lag(client, channel, lag)

    def broadcast_transient(
        self, channel: Channel, event: bytes, *, excluded: frozenset[str] = frozenset()
    ) -> int:
        """Send something that is worth nothing later to all who can take it now; who could not.

        What waits goes first, so that it never stands before a message that is older.
        """
        self._flusher.flush_channel(channel)
        seq = channel.state.position.seq
        frames = (plain_frame(event), self._offsets.frame(event, self._offsets.last_serial))
        passed_over = 0
        with self._deferred_close:
            for client, place in channel.clients_with_seq():
                if client.id in excluded:
                    continue
                if place == seq and not client.link.clogged:
                    client.send(frames[client.checkpoints is not None])
                else:
                    passed_over += 1
        return passed_over

    def broadcast(
        self, channel: Channel, event: bytes, *, excluded: frozenset[str] = frozenset()
    ) -> None:
        """Send something that everybody has to hear, though it has no place of its own."""
        self._flusher.flush_channel(channel)
        serial = self._offsets.allocate()
        if channel.push_log is not None:
            channel.push_log.append(LoggedPush(serial, channel.state.position.seq, event, excluded))
        frames = (plain_frame(event), self._offsets.frame(event, serial))
        with self._deferred_close:
            for client in channel.clients():
                if client.id not in excluded and not self._replays_pushes(client, channel):
                    self._send_bounded(client, frames[client.checkpoints is not None])

    def _replays_pushes(self, client: Client, channel: Channel) -> bool:
        """Whether it is being told what it missed, in order: this comes with the rest."""
        lag = channel.tier(client.channels[channel]).unsynced.get(client)
        return lag is not None and lag.pushed_serial is not None

    def send_to(self, connection_id: str, event: bytes) -> bool:
        """Send something to one client that it has to hear; False where it is not here now."""
        client = self._registry.clients.get(connection_id)
        if client is None:
            client = self._registry.parked.get(connection_id)
            if client is not None:
                self._log(client, event)
            return False
        if client.checkpoints is None:
            return self._send_bounded(client, plain_frame(event))
        return self._send_bounded(client, self._offsets.frame(event, self._log(client, event)))

    def send_with_ack(self, connection_id: str, frame: bytes) -> bool:
        """Send a frame as it is to one client, once; False where it is not here."""
        client = self._registry.clients.get(connection_id)
        return client is not None and self._send_bounded(client, frame)

    def resend(self, client: Client, serial: int) -> None:
        """Say again to one client what was said to it after this."""
        if client.push_log is not None:
            # With a new number each: cut off once more, it must not get both.
            for event in client.push_log.pop_after(serial):
                self.send_to(client.id, event)

    def _log(self, client: Client, event: bytes) -> int:
        if client.push_log is None:
            client.push_log = PushLog(max_count=_MAX_PUSHES, max_bytes=_MAX_PUSH_BYTES)
        serial = self._offsets.allocate()
        client.push_log.append(LoggedPush(serial, 0, event))
        return serial

    def _send_bounded(self, client: Client, frame: bytes) -> bool:
        """Write though its way is full, unless too much waits already: then it is let go."""
        if client.link in self._deferred_close:
            # It would have this, and not what it has to go for.
            return False
        if client.link.buffered_bytes + len(frame) > self._buffer_bytes:
            self._slow_consumers.disconnect(client)
            return False
        return client.send(frame)
