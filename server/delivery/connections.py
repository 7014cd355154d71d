"""Registers the clients of this node: connected ones and parked ones."""

from server.core.recovery.checkpoints import Checkpoints
from server.core.recovery.offsets import Offsets
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.deferred_close import DeferredClose
from server.delivery.slow_consumers import SlowConsumers
from server.ports import Link


class ClientRegistry:
    """Connected clients, and parked clients that may resume."""

    def __init__(
        self, *, offsets: Offsets, deferred_close: DeferredClose, slow_consumers: SlowConsumers
    ) -> None:
        self._offsets = offsets
        self._deferred_close = deferred_close
        self._slow_consumers = slow_consumers
        self.clients: dict[str, Client] = {}
        self.parked: dict[str, Client] = {}

    def attach(self, connection_id: str, link: Link, *, numbered: bool = False) -> None:
        """Register a connection; if `numbered`, its events carry offsets."""
        checkpoints: Checkpoints[Channel] | None = (
            Checkpoints(self._offsets.last_serial) if numbered else None
        )
        self.clients[connection_id] = Client(connection_id, link, checkpoints, self._deferred_close)

    def detach(self, connection_id: str) -> tuple[str, ...]:
        """Forget a connection; the channels it leaves without subscribers. No-op if unknown."""
        client = self.parked.pop(connection_id, None)
        if client is None:
            client = self.clients.pop(connection_id, None)
            if client is None:
                return ()
            self._stop_delivery(client)
        emptied = []
        for channel in client.channels:
            channel.parked.pop(client, None)
            if not channel.is_needed:
                emptied.append(channel.name)
        client.channels.clear()
        return tuple(emptied)

    def park(self, connection_id: str) -> None:
        """Stop sending to a disconnected client, and keep its subscriptions for a resume."""
        client = self.clients.pop(connection_id)
        self._stop_delivery(client)
        client.last_serial = self._offsets.last_serial
        for channel in client.channels:
            channel.parked[client] = None
        self.parked[connection_id] = client

    def import_parked(self, connection_id: str, link: Link, foreign_offset: str | None) -> Client:
        """Park a client from another node, without subscriptions yet."""
        base_serial = self._offsets.last_serial
        checkpoints: Checkpoints[Channel] = Checkpoints(base_serial, foreign_offset)
        client = Client(connection_id, link, checkpoints, self._deferred_close)
        client.last_serial = base_serial
        self.parked[connection_id] = client
        return client

    def _stop_delivery(self, client: Client) -> None:
        """Remove a client from all tiers and from the slow consumers."""
        self._slow_consumers.forget(client)
        client.backlog = None
        for channel, interval_ms in client.channels.items():
            channel.leave(client, interval_ms)
