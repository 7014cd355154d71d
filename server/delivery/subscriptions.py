"""Who hears which topic, at which pace, and from where on."""

from server.core.log.backlog import Lag
from server.core.log.entries import Reset
from server.core.recovery.checkpoints import Answer
from server.core.recovery.offsets import Offsets
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.conflation import Paces
from server.delivery.connections import Roster
from server.delivery.flusher import Turn
from server.delivery.slow_consumers import Laggards


class Hearing:
    """Puts clients into the tiers of topics, and takes them out."""

    def __init__(
        self,
        *,
        roster: Roster,
        turn: Turn,
        paces: Paces,
        laggards: Laggards,
        offsets: Offsets,
    ) -> None:
        self._roster = roster
        self._turn = turn
        self._paces = paces
        self._laggards = laggards
        self._offsets = offsets

    def standing(self, connection_id: str, channel: Channel) -> tuple[int, int]:
        """How often a client is served in a topic, in milliseconds, and what it was last sent."""
        client = self._roster.clients[connection_id]
        pace = client.channels[channel]
        tier = channel.tier(pace)
        lag = tier.odd.get(client)
        return pace, tier.last if lag is None else lag.last

    def listens(self, connection_id: str, channel: Channel) -> bool:
        """Whether the client hears this topic."""
        return channel in self._roster.clients[connection_id].channels

    def listen(self, connection_id: str, channel: Channel, interval_ms: int) -> int:
        """The client hears the topic from its head on; the pace that it is served at."""
        client = self._roster.clients[connection_id]
        self._turn.flush_channel(channel)
        head = channel.view.position.seq
        before = self._part(client, channel)
        if client.trail is not None and (before is None or before.owes or before.last != head):
            client.trail.begin(channel, Answer(self._offsets.last, moved=before is not None))
        if interval_ms:
            client.asked[channel] = interval_ms
        pace = client.pace(channel)
        self.place(client, channel, pace, Lag(head))
        owed = before is not None and before.needs_status
        if owed or channel.stale_since_ms is not None:
            self._owe(client, channel, Lag(head, needs_status=True))
        return pace

    def answered(self, connection_id: str) -> None:
        """The client is told now where it stands in what it was made to hear."""
        client = self._roster.clients.get(connection_id)
        if client is not None and client.trail is not None:
            client.trail.answered(self._offsets.last)

    def owe_snapshot(self, connection_id: str, channel: Channel) -> None:
        """The client has the position but not the state: that comes as a message."""
        lag = Lag(channel.view.position.seq, needs_snapshot=True)
        lag.needs_status = channel.stale_since_ms is not None
        self._owe(self._roster.clients[connection_id], channel, lag)

    def unlisten(self, connection_id: str, channel: Channel) -> None:
        """The client wants no more of it, or is to have no more of it when it is back.

        One that is gone by now is nothing.
        """
        parked = self._roster.parked.get(connection_id)
        if parked is not None:
            del parked.channels[channel]
            parked.asked.pop(channel, None)
            channel.held.pop(parked, None)
            if parked.trail is not None:
                parked.trail.drop(channel)
            return
        client = self._roster.clients.get(connection_id)
        if client is not None:
            self._part(client, channel)
            if client.trail is not None:
                client.trail.drop(channel)

    def place(self, client: Client, channel: Channel, pace: int, lag: Lag) -> None:
        """Put a client where it belongs, and see to it that it gets what it lacks there."""
        client.channels[channel] = pace
        if channel.join(client, pace, lag):
            return
        if lag.last == channel.view.position.seq and not lag.owes:
            return
        if pace:
            self._paces.due[pace][channel] = None
        else:
            self._laggards.owe(client, channel, lag)

    def begin_anew(self, channel: Channel, reset: Reset) -> None:
        """Move the ground, and all who listen with it."""
        self._turn.flush_channel(channel)
        view, before = channel.view, channel.view.position
        begun = reset.head.epoch != before.epoch
        parted = [
            (client, channel.part(client, client.channels[channel])) for client in channel.clients()
        ]
        channel.reset(reset)
        for client, lag in parted:
            lasts = lag.last == before.seq and lag.told is None and begun
            if view.resyncs:
                lag.needs_resync = lag.needs_status = True
                lag.needs_snapshot = reset.latest is not None
            elif not lasts:
                self._laggards.let_go(client, "messages were lost on their way here")
            if not lag.needs_snapshot:
                lag.last, lag.oldest_ms = reset.head.seq, None
            channel.join(client, client.channels[channel], lag)
            if view.resyncs:
                self._laggards.owe(client, channel, lag)
        # Whoever comes back and has seen no more than until here stands nowhere.
        channel.reset_serial = self._offsets.take()

    def _part(self, client: Client, channel: Channel) -> Lag | None:
        client.asked.pop(channel, None)
        pace = client.channels.pop(channel, None)
        if pace is None:
            return None
        if client.outbox is not None:
            client.outbox.drop(channel)
        return channel.part(client, pace)

    def _owe(self, client: Client, channel: Channel, lag: Lag) -> None:
        pace = client.channels[channel]
        channel.part(client, pace)
        channel.join(client, pace, lag)
        self._laggards.owe(client, channel, lag)
