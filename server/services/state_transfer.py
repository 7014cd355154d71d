"""Exports the subscriptions of a parked connection to another node, and imports them."""

from contextlib import ExitStack

from client_sdk.contract import INTERVALS_MS
from server.access import Principal
from server.core.errors import FloorcastError
from server.core.log.entries import Position
from server.core.market.subscriptions import Subscriptions
from server.core.market.topics import Topic, channel_for
from server.core.recovery.connection_state import ConnectionState, SubscriptionState
from server.delivery import ExportedSubscription, Hub
from server.delivery.channel import Channel
from server.ports import Link
from server.services.market.topic_subscriptions import SubscribingConfig, TopicSubscriptions

OpenedTopics = list[tuple[SubscriptionState, Topic, Channel]]


class StateTransfer:
    """Export and import of parked market connections.

    An imported connection is parked as if it had disconnected here, and resumes in the same way.
    """

    def __init__(
        self,
        config: SubscribingConfig,
        topics: TopicSubscriptions,
        subscriptions: Subscriptions,
        hub: Hub,
    ) -> None:
        self._config = config
        self._topics = topics
        self._subscriptions = subscriptions
        self._hub = hub
        # Channels of exported connections that may have no subscribers any more.
        self._idle_channels: list[str] = []

    def last_offset(self, connection_id: str) -> str:
        """The offset of the last write to a parked connection."""
        return self._hub.last_offset(connection_id)

    def export_state(
        self, connection_id: str, offset: str | None
    ) -> tuple[SubscriptionState, ...] | None:
        """Remove a parked connection; returns its subscriptions, None if `offset` is unknown."""
        states = self._subscription_states(connection_id, offset)
        self._subscriptions.remove_connection(connection_id)
        self._idle_channels += self._hub.detach(connection_id)
        return states

    async def release_idle(self) -> None:
        """Stop receiving topics that have no subscribers since an export."""
        idle, self._idle_channels = self._idle_channels, []
        for name in idle:
            await self._topics.close(name)

    async def import_state(
        self, principal: Principal, link: Link, state: ConnectionState, offset: str | None
    ) -> bool:
        """Park an exported connection here; `resume` authorizes its new token later.

        Returns False if its state is invalid, if its missed messages are lost, or if the broker
        is down.
        """
        topics = self._parse_topics(state)
        if topics is None:
            return False
        opened: OpenedTopics = []
        try:
            with ExitStack() as holds:
                for subscription, topic in zip(state.topics, topics, strict=True):
                    channel = await self._open(principal, topic, subscription.position)
                    holds.enter_context(self._topics.hold(channel.name))
                    opened.append((subscription, topic, channel))
                # No await from here on: messages published later follow the missed ones.
                return self._restore(link, state, offset, opened)
        except FloorcastError:
            # The broker is down.
            return False
        finally:
            for _, _, channel in opened:
                await self._topics.close(channel.name)

    def _subscription_states(
        self, connection_id: str, offset: str | None
    ) -> tuple[SubscriptionState, ...] | None:
        exported = self._hub.export(connection_id, offset)
        if exported is None:
            return None
        topics = {
            each.channel: each.topic for each in self._subscriptions.of_connection(connection_id)
        }
        return tuple(
            SubscriptionState(
                topics[each.channel].name,
                each.position,
                each.interval_ms,
                each.needs_snapshot,
                each.stale,
            )
            for each in exported.subscriptions
        )

    def _parse_topics(self, state: ConnectionState) -> list[Topic] | None:
        """Validate the topics of an exported connection: another node sent it."""
        if 0 < self._config.max_topics < len(state.topics):
            return None
        if any(each.interval_ms not in INTERVALS_MS for each in state.topics):
            return None
        try:
            return [Topic.parse(each.topic) for each in state.topics]
        except FloorcastError:
            return None

    async def _open(self, principal: Principal, topic: Topic, seen: Position) -> Channel:
        """Open a topic, at least up to the position that the client has seen."""
        name = channel_for(topic, principal.org, principal.user_id)
        try:
            if topic.stream.is_conflated:
                channel, _ = await self._topics.open(name, topic)
                head = channel.state.position
                if head.epoch != seen.epoch or head.seq >= seen.seq:
                    # A merged stream needs only its state.
                    return channel
            # The broker replies only after this node has received all of these entries.
            channel, _ = await self._topics.open(name, topic, seen)
        except BaseException:
            await self._topics.close(name)
            raise
        return channel

    def _restore(
        self, link: Link, state: ConnectionState, offset: str | None, opened: OpenedTopics
    ) -> bool:
        connection_id = state.connection_id
        if connection_id in self._subscriptions:
            # The id may be forged: never replace an existing connection.
            return False
        subscriptions = [
            ExportedSubscription(
                channel.name, each.position, each.interval_ms, each.needs_snapshot, each.stale
            )
            for each, _, channel in opened
        ]
        if not self._hub.restore(connection_id, link, offset, subscriptions):
            return False
        self._subscriptions.add_connection(connection_id, state.org, state.user_id)
        for exported, topic, _ in opened:
            subscription = self._subscriptions.request(connection_id, topic)
            self._subscriptions.activate(connection_id, subscription, exported.interval_ms)
        self._subscriptions.park(connection_id)
        return True
