"""Registers the clients of this node: connected ones and parked ones."""

from collections.abc import Mapping

from server.core.recovery.checkpoints import ResumeRange
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.context import DeliveryContext
from server.delivery.slow_consumers import SlowConsumers
from server.ports import Link


class ClientRegistry:
    """Connected clients, and parked clients that may resume."""

    def __init__(
        self,
        context: DeliveryContext,
        channels: Mapping[str, Channel],
        slow_consumers: SlowConsumers,
    ) -> None:
        self._offsets = context.offsets
        self._deferred_close = context.deferred_close
        self.channels = channels
        self._slow_consumers = slow_consumers
        self.clients: dict[str, Client] = {}
        self.parked: dict[str, Client] = {}

    def find(self, connection_id: str) -> Client | None:
        """A connected or parked client; None if unknown."""
        return self.clients.get(connection_id) or self.parked.get(connection_id)

    def attach(self, connection_id: str, link: Link, *, numbered: bool) -> None:
        """Register a connection; if `numbered`, its events carry offsets."""
        resume_range = ResumeRange(self._offsets.last_serial) if numbered else None
        client = Client(connection_id, link, self._deferred_close, resume_range)
        self.clients[connection_id] = client

    def attach_parked(self, connection_id: str, link: Link, foreign_offset: str | None) -> Client:
        """Register a parked client of another node, without subscriptions yet."""
        resume_range = ResumeRange(self._offsets.last_serial, foreign_offset)
        client = Client(connection_id, link, self._deferred_close, resume_range)
        self.parked[connection_id] = client
        return client

    def park(self, connection_id: str) -> None:
        """Stop sending to a disconnected client, and keep its subscriptions for a resume."""
        client = self.clients.pop(connection_id)
        self._slow_consumers.forget(client)
        for name, subscription in client.subscriptions.items():
            self.channels[name].park(subscription)
        # Last: the tiers know their clients by their links.
        client.park(self._offsets.last_serial)
        self.parked[connection_id] = client

    def resume(self, client: Client, link: Link) -> None:
        """Connect a parked client again; it is in no tier yet."""
        del self.parked[client.id]
        client.resume(link)
        self.clients[client.id] = client
        for name, subscription in client.subscriptions.items():
            self.channels[name].unpark(subscription)

    def detach(self, connection_id: str) -> tuple[str, ...]:
        """Forget a connection; the channels it leaves without subscribers. No-op if unknown."""
        client = self.parked.pop(connection_id, None)
        if client is None:
            client = self.clients.pop(connection_id, None)
            if client is None:
                return ()
            self._slow_consumers.forget(client)
        emptied = []
        for name, subscription in client.subscriptions.items():
            channel = self.channels[name]
            channel.remove(subscription)
            if not channel.is_needed:
                emptied.append(name)
        client.end()
        return tuple(emptied)
