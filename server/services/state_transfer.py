"""Moves what a connection listens to from the node it was cut off on to the one it is back at."""

from contextlib import ExitStack

from client_sdk.contract import INTERVALS_MS
from server.access import Principal
from server.core.errors import FloorcastError
from server.core.log.backlog import Lag
from server.core.log.entries import Position
from server.core.market.subscriptions import Subscriptions
from server.core.market.topics import Topic, channel_for
from server.core.recovery.connection_state import Luggage, Standing
from server.core.recovery.offsets import Offsets
from server.delivery import Fanout
from server.delivery.catch_up import lacking
from server.delivery.channel import Channel
from server.ports import Link
from server.services.market.topic_subscriptions import OpenTopics, SubscribingConfig

Opened = list[tuple[Standing, Topic, Channel]]


class Moving:
    """Packs up those who were cut off here, and takes in those who were cut off elsewhere.

    Who was taken in stands as if they had been cut off here: coming back is the same then.
    """

    def __init__(
        self,
        config: SubscribingConfig,
        topics: OpenTopics,
        subscriptions: Subscriptions,
        fanout: Fanout,
        offsets: Offsets,
    ) -> None:
        self._config = config
        self._topics = topics
        self._subscriptions = subscriptions
        self._fanout = fanout
        self._offsets = offsets
        # What those listened to who were given up, and nobody may listen to any more.
        self._emptied: list[str] = []

    def last_offset(self, connection_id: str) -> str:
        """The offset of who has seen all that was written before it was cut off."""
        return self._offsets.text(self._fanout.parked(connection_id).last_serial)

    def pack(self, connection_id: str, offset: str | None) -> tuple[Standing, ...] | None:
        """Where it stands in each of its topics; None where that cannot be told exactly.

        It is gone from here either way.
        """
        standings = self._standings(connection_id, offset)
        self._subscriptions.leave(connection_id)
        self._emptied += self._fanout.detach(connection_id)
        return standings

    async def tidy(self) -> None:
        """Close what nobody listens to since somebody was packed up."""
        emptied, self._emptied = self._emptied, []
        for name in emptied:
            await self._topics.close(name)

    async def take_in(
        self, principal: Principal, link: Link, luggage: Luggage, offset: str | None
    ) -> bool:
        """Let it be had back here, where its new token is judged; False where that cannot be."""
        topics = self._read(luggage)
        if topics is None:
            return False
        opened: Opened = []
        try:
            with ExitStack() as held:
                for standing, topic in zip(luggage.topics, topics, strict=True):
                    channel = await self._open(principal, topic, standing.position)
                    held.enter_context(self._topics.holding(channel.name))
                    opened.append((standing, topic, channel))
                # From here on nothing waits: what is published now comes after what was missed.
                return self._place(link, luggage, offset, opened)
        except FloorcastError:
            # The broker is away.
            return False
        finally:
            for _, _, channel in opened:
                await self._topics.close(channel.name)

    def _standings(self, connection_id: str, offset: str | None) -> tuple[Standing, ...] | None:
        client = self._fanout.parked(connection_id)
        lacks = lacking(client, offset, self._offsets)
        if lacks is None:
            return None
        standings = []
        for subscription in self._subscriptions.of_connection(connection_id):
            channel = self._fanout.channel(subscription.channel)
            assert channel is not None
            lag = lacks.lags[channel]
            stale = channel.stale_since_ms is not None
            standings.append(
                Standing(
                    subscription.topic.name,
                    Position(channel.view.position.epoch, lag.last),
                    client.asked.get(channel, 0),
                    lag.needs_snapshot,
                    None if lag.needs_status else stale,
                )
            )
        return tuple(standings)

    def _read(self, luggage: Luggage) -> list[Topic] | None:
        """Its topics, if there is room for them; it came by the wire."""
        if 0 < self._config.max_topics < len(luggage.topics):
            return None
        if any(each.interval_ms not in INTERVALS_MS for each in luggage.topics):
            return None
        try:
            return [Topic.parse(each.topic) for each in luggage.topics]
        except FloorcastError:
            return None

    async def _open(self, principal: Principal, topic: Topic, seen: Position) -> Channel:
        """The topic, followed here, and come as far as the client had come on the other node."""
        name = channel_for(topic, principal.org, principal.user_id)
        try:
            if topic.stream.merges:
                channel, _ = await self._topics.open(name, topic)
                head = channel.view.position
                if head.epoch != seen.epoch or head.seq >= seen.seq:
                    # The state is all that anybody needs.
                    return channel
            # The broker tells what it has kept, when all of that was heard here.
            channel, _ = await self._topics.open(name, topic, seen)
        except BaseException:
            await self._topics.close(name)
            raise
        return channel

    def _place(self, link: Link, luggage: Luggage, offset: str | None, opened: Opened) -> bool:
        lags = [_lag(channel, standing) for standing, _, channel in opened]
        if None in lags:
            return False
        connection_id = luggage.connection_id
        if connection_id in self._subscriptions:
            # It may be what a stranger has made up.
            return False
        client = self._fanout.take_in(connection_id, link, offset)
        self._subscriptions.enter(connection_id, luggage.org, luggage.user_id)
        for (standing, topic, channel), lag in zip(opened, lags, strict=True):
            assert lag is not None
            if standing.interval_ms:
                client.asked[channel] = standing.interval_ms
            client.channels[channel] = standing.interval_ms
            channel.held[client] = None
            client.note(channel, client.last_serial, lag.last, owes=lag)
            subscription = self._subscriptions.pend(connection_id, topic)
            self._subscriptions.listen(connection_id, subscription, standing.interval_ms)
        self._subscriptions.park(connection_id)
        return True


def _lag(channel: Channel, standing: Standing) -> Lag | None:
    """How far it had come, in the positions of this node; None where they do not reach there."""
    view, seen = channel.view, standing.position
    head = view.position
    lag = Lag(seen.seq, needs_snapshot=standing.needs_snapshot)
    if seen.epoch != head.epoch:
        if not view.merges:
            return None
        # Its state is all that anybody needs, and what it had is none of this history.
        lag = Lag(head.seq, needs_snapshot=True)
    elif not 0 <= seen.seq <= head.seq:
        return None
    lag.needs_status = standing.stale is not (channel.stale_since_ms is not None)
    return lag
