"""The connections of this node as delivery knows them: here, or cut off and maybe back."""

from server.core.recovery.checkpoints import Trail
from server.core.recovery.offsets import Offsets
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.deferred_close import Endings
from server.delivery.slow_consumers import Laggards
from server.ports import Link


class Roster:
    """Who can be written to, and who is waited for."""

    def __init__(self, *, offsets: Offsets, endings: Endings, laggards: Laggards) -> None:
        self._offsets = offsets
        self._endings = endings
        self._laggards = laggards
        self.clients: dict[str, Client] = {}
        self.parked: dict[str, Client] = {}

    def attach(self, connection_id: str, link: Link, *, numbered: bool = False) -> None:
        """From now on this connection can be written to; `numbered`, with offsets."""
        trail: Trail[Channel] | None = Trail(self._offsets.last) if numbered else None
        self.clients[connection_id] = Client(connection_id, link, trail, self._endings)

    def detach(self, connection_id: str) -> tuple[str, ...]:
        """The connection has ended; the channels that nobody listens to any more."""
        client = self.parked.pop(connection_id, None)
        if client is None:
            client = self.clients.pop(connection_id, None)
            if client is None:
                return ()
            self._silence(client)
        emptied = []
        for channel in client.channels:
            channel.held.pop(client, None)
            if not channel.needed:
                emptied.append(channel.name)
        client.channels.clear()
        return tuple(emptied)

    def park(self, connection_id: str) -> None:
        """The connection was cut off and may be back: nothing is sent, and nothing is let go."""
        client = self.clients.pop(connection_id)
        self._silence(client)
        client.last_serial = self._offsets.last
        for channel in client.channels:
            channel.held[client] = None
        self.parked[connection_id] = client

    def take_in(self, connection_id: str, link: Link, alias: str | None) -> Client:
        """One that was cut off on another node, and may be back here; it listens to nothing yet."""
        born = self._offsets.last
        trail: Trail[Channel] = Trail(born, alias)
        client = Client(connection_id, link, trail, self._endings)
        client.last_serial = born
        self.parked[connection_id] = client
        return client

    def _silence(self, client: Client) -> None:
        """Nothing more is written to it."""
        self._laggards.forget(client)
        client.outbox = None
        for channel, pace in client.channels.items():
            channel.part(client, pace)
