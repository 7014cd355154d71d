"""The connections of this node as delivery knows them: here, or cut off and maybe back."""

from server.core.recovery.checkpoints import Checkpoints
from server.core.recovery.offsets import Offsets
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.deferred_close import DeferredClose
from server.delivery.slow_consumers import SlowConsumers
from server.ports import Link


class ClientRegistry:
    """Who can be written to, and who is waited for."""

    def __init__(
        self, *, offsets: Offsets, deferred_close: DeferredClose, slow_consumers: SlowConsumers
    ) -> None:
        self._offsets = offsets
        self._deferred_close = deferred_close
        self._slow_consumers = slow_consumers
        self.clients: dict[str, Client] = {}
        self.parked: dict[str, Client] = {}

    def attach(self, connection_id: str, link: Link, *, numbered: bool = False) -> None:
        """From now on this connection can be written to; `numbered`, with offsets."""
        trail: Checkpoints[Channel] | None = (
            Checkpoints(self._offsets.last_serial) if numbered else None
        )
        self.clients[connection_id] = Client(connection_id, link, trail, self._deferred_close)

    def detach(self, connection_id: str) -> tuple[str, ...]:
        """The connection has ended; the channels that nobody listens to any more."""
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
        """The connection was cut off and may be back: nothing is sent, and nothing is let go."""
        client = self.clients.pop(connection_id)
        self._stop_delivery(client)
        client.last_serial = self._offsets.last_serial
        for channel in client.channels:
            channel.parked[client] = None
        self.parked[connection_id] = client

    def import_parked(self, connection_id: str, link: Link, foreign_offset: str | None) -> Client:
        """One that was cut off on another node, and may be back here; it listens to nothing yet."""
        born = self._offsets.last_serial
        trail: Checkpoints[Channel] = Checkpoints(born, foreign_offset)
        client = Client(connection_id, link, trail, self._deferred_close)
        client.last_serial = born
        self.parked[connection_id] = client
        return client

    def _stop_delivery(self, client: Client) -> None:
        """Nothing more is written to it."""
        self._slow_consumers.forget(client)
        client.backlog = None
        for channel, pace in client.channels.items():
            channel.leave(client, pace)
