"""Moves what a connection listens to from the node it was cut off on to the one it is back at."""

from contextlib import ExitStack

from client_sdk.contract import INTERVALS_MS
from server.access import Principal
from server.core.errors import FloorcastError
from server.core.log.backlog import Lag
from server.core.log.entries import Position
from server.core.market.subscriptions import Subscriptions
from server.core.market.topics import Topic, channel_for
from server.core.recovery.connection_state import ConnectionState, SubscriptionState
from server.core.recovery.offsets import Offsets
from server.delivery import Hub
from server.delivery.catch_up import plan_resume
from server.delivery.channel import Channel
from server.ports import Link
from server.services.market.topic_subscriptions import SubscribingConfig, TopicSubscriptions

OpenedTopics = list[tuple[SubscriptionState, Topic, Channel]]


class StateTransfer:
    """Packs up those who were cut off here, and takes in those who were cut off elsewhere.

    Who was taken in stands as if they had been cut off here: coming back is the same then.
    """

    def __init__(
        self,
        config: SubscribingConfig,
        topics: TopicSubscriptions,
        subscriptions: Subscriptions,
        hub: Hub,
        offsets: Offsets,
    ) -> None:
        self._config = config
        self._topics = topics
        self._subscriptions = subscriptions
        self._hub = hub
        self._offsets = offsets
        # What those listened to who were given up, and nobody may listen to any more.
        self._idle_channels: list[str] = []

    def last_offset(self, connection_id: str) -> str:
        """The offset of who has seen all that was written before it was cut off."""
        return self._offsets.format(self._hub.parked_client(connection_id).last_serial)

    def export_state(
        self, connection_id: str, offset: str | None
    ) -> tuple[SubscriptionState, ...] | None:
        """Where it stands in each of its topics; None where that cannot be told exactly.

        It is gone from here either way.
        """
        standings = self._subscription_states(connection_id, offset)
        self._subscriptions.remove_connection(connection_id)
        self._idle_channels += self._hub.detach(connection_id)
        return standings

    async def release_idle(self) -> None:
        """Close what nobody listens to since somebody was packed up."""
        emptied, self._idle_channels = self._idle_channels, []
        for name in emptied:
            await self._topics.close(name)

    async def import_state(
        self, principal: Principal, link: Link, state: ConnectionState, offset: str | None
    ) -> bool:
        """Let it be had back here, where its new token is judged; False where that cannot be."""
        topics = self._parse_topics(state)
        if topics is None:
            return False
        opened: OpenedTopics = []
        try:
            with ExitStack() as held:
                for standing, topic in zip(state.topics, topics, strict=True):
                    channel = await self._open(principal, topic, standing.position)
                    held.enter_context(self._topics.hold(channel.name))
                    opened.append((standing, topic, channel))
                # From here on nothing waits: what is published now comes after what was missed.
                return self._restore(link, state, offset, opened)
        except FloorcastError:
            # The broker is away.
            return False
        finally:
            for _, _, channel in opened:
                await self._topics.close(channel.name)

    def _subscription_states(
        self, connection_id: str, offset: str | None
    ) -> tuple[SubscriptionState, ...] | None:
        client = self._hub.parked_client(connection_id)
        lacks = plan_resume(client, offset, self._offsets)
        if lacks is None:
            return None
        standings = []
        for subscription in self._subscriptions.of_connection(connection_id):
            channel = self._hub.channel(subscription.channel)
            assert channel is not None
            lag = lacks.lags[channel]
            stale = channel.stale_since_ms is not None
            standings.append(
                SubscriptionState(
                    subscription.topic.name,
                    Position(channel.state.position.epoch, lag.last_seq),
                    client.requested_ms.get(channel, 0),
                    lag.needs_snapshot,
                    None if lag.needs_status else stale,
                )
            )
        return tuple(standings)

    def _parse_topics(self, state: ConnectionState) -> list[Topic] | None:
        """Its topics, if there is room for them; it came by the wire."""
        if 0 < self._config.max_topics < len(state.topics):
            return None
        if any(each.interval_ms not in INTERVALS_MS for each in state.topics):
            return None
        try:
            return [Topic.parse(each.topic) for each in state.topics]
        except FloorcastError:
            return None

    async def _open(self, principal: Principal, topic: Topic, seen: Position) -> Channel:
        """The topic, followed here, and come as far as the client had come on the other node."""
        name = channel_for(topic, principal.org, principal.user_id)
        try:
            if topic.stream.is_conflated:
                channel, _ = await self._topics.open(name, topic)
                head = channel.state.position
                if head.epoch != seen.epoch or head.seq >= seen.seq:
                    # The state is all that anybody needs.
                    return channel
            # The broker tells what it has kept, when all of that was heard here.
            channel, _ = await self._topics.open(name, topic, seen)
        except BaseException:
            await self._topics.close(name)
            raise
        return channel

    def _restore(
        self, link: Link, state: ConnectionState, offset: str | None, opened: OpenedTopics
    ) -> bool:
        lags = [_restored_lag(channel, standing) for standing, _, channel in opened]
        if None in lags:
            return False
        connection_id = state.connection_id
        if connection_id in self._subscriptions:
            # It may be what a stranger has made up.
            return False
        client = self._hub.import_parked(connection_id, link, offset)
        self._subscriptions.add_connection(connection_id, state.org, state.user_id)
        for (standing, topic, channel), lag in zip(opened, lags, strict=True):
            assert lag is not None
            if standing.interval_ms:
                client.requested_ms[channel] = standing.interval_ms
            client.channels[channel] = standing.interval_ms
            channel.parked[client] = None
            client.add_checkpoint(channel, client.last_serial, lag.last_seq, lag=lag)
            subscription = self._subscriptions.request(connection_id, topic)
            self._subscriptions.activate(connection_id, subscription, standing.interval_ms)
        self._subscriptions.park(connection_id)
        return True


def _restored_lag(channel: Channel, subscription: SubscriptionState) -> Lag | None:
    """How far it had come, in the positions of this node; None where they do not reach there."""
    view, seen = channel.state, subscription.position
    head = view.position
    lag = Lag(seen.seq, needs_snapshot=subscription.needs_snapshot)
    if seen.epoch != head.epoch:
        if not view.merges:
            return None
        # Its state is all that anybody needs, and what it had is none of this history.
        lag = Lag(head.seq, needs_snapshot=True)
    elif not 0 <= seen.seq <= head.seq:
        return None
    lag.needs_status = subscription.stale is not (channel.stale_since_ms is not None)
    return lag
