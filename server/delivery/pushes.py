"""Sends events that are not entries of a log: feed status, presence, signals, notices."""

from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import LoggedPush, PushLog
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.conflation import ConflatedTiers
from server.delivery.connections import ClientRegistry
from server.delivery.deferred_close import DeferredClose
from server.delivery.flusher import Flusher
from server.delivery.slow_consumers import SlowConsumers

# Bounds of the pushes kept per client for a resume.
_MAX_PUSHES = 100
_MAX_PUSH_BYTES = 64 * 1024


class Pushes:
    """Writes pushes at once, after the pending entries; a push has no position."""

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
        """Send the feed's state to all subscribers; slow consumers get it when they catch up."""
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
            interval_ms = client.channels[channel]
            lag = channel.leave(client, interval_ms)
            lag.needs_status = True
            channel.join(client, interval_ms, lag)
            if interval_ms:
                self._conflated_tiers.due[interval_ms][channel] = None
                self._slow_consumers.add(client)
            else:
                self._slow_consumers.add_lag(client, channel, lag)

    def broadcast_transient(
        self, channel: Channel, event: bytes, *, excluded: frozenset[str] = frozenset()
    ) -> int:
        """Broadcast a transient event to every writable subscriber that is caught up.

        Returns how many were skipped. Pending entries are written first.
        """
        self._flusher.flush_channel(channel)
        seq = channel.state.position.seq
        frames = (plain_frame(event), self._offsets.frame(event, self._offsets.last_serial))
        skipped = 0
        with self._deferred_close:
            for client, last_seq in channel.clients_with_seq():
                if client.id in excluded:
                    continue
                if last_seq == seq and not client.link.clogged:
                    client.send(frames[client.checkpoints is not None])
                else:
                    skipped += 1
        return skipped

    def broadcast(
        self, channel: Channel, event: bytes, *, excluded: frozenset[str] = frozenset()
    ) -> None:
        """Broadcast an event that must arrive: logged for a resume, sent even to full buffers."""
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
        """Whether the client is still receiving earlier pushes; this one comes after them."""
        lag = channel.tier(client.channels[channel]).unsynced.get(client)
        return lag is not None and lag.pushed_serial is not None

    def send_to(self, connection_id: str, event: bytes) -> bool:
        """Send an event to one client; False if not sent now. A parked client gets it on resume."""
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
        """Send a frame that asks for an acknowledgement, without logging it; False if not sent."""
        client = self._registry.clients.get(connection_id)
        return client is not None and self._send_bounded(client, frame)

    def resend(self, client: Client, serial: int) -> None:
        """Resend the pushes that went to one client after `serial`."""
        if client.push_log is not None:
            # Each gets a new serial: after another disconnect it must not come twice.
            for event in client.push_log.pop_after(serial):
                self.send_to(client.id, event)

    def _log(self, client: Client, event: bytes) -> int:
        if client.push_log is None:
            client.push_log = PushLog(max_count=_MAX_PUSHES, max_bytes=_MAX_PUSH_BYTES)
        serial = self._offsets.allocate()
        client.push_log.append(LoggedPush(serial, 0, event))
        return serial

    def _send_bounded(self, client: Client, frame: bytes) -> bool:
        """Write even if the link is clogged; disconnect a client whose buffer is full."""
        if client.link in self._deferred_close:
            # It is about to close because an earlier event did not reach it.
            return False
        if client.link.buffered_bytes + len(frame) > self._buffer_bytes:
            self._slow_consumers.disconnect(client)
            return False
        return client.send(frame)
