"""Parks, resumes, exports and imports the topic subscriptions of market connections."""

from contextlib import ExitStack

from client_sdk.contract import INTERVALS_MS
from server.access import Principal
from server.core.errors import FloorcastError
from server.core.log.entries import Position
from server.core.market.subscriptions import Subscriptions
from server.core.market.topics import Topic, channel_for
from server.core.recovery.connection_state import ConnectionState, SubscriptionState
from server.core.recovery.tickets import Owner
from server.delivery import ExportedSubscription, Hub
from server.delivery.channel import Channel
from server.services.market.instruments import Instruments
from server.services.market.patterns import Patterns
from server.services.market.subscribing import SubscribingService, may_subscribe
from server.services.market.subscribing_config import SubscribingConfig
from server.services.market.topic_subscriptions import TopicSubscriptions
from server.services.market.view_shares import view_owner
from server.services.node_subscriptions import release_each
from server.services.recovery import ResumingClient

OpenedTopics = list[tuple[SubscriptionState, Topic, Channel]]


class MarketRecovery:
    """Implements `RecoverableState` for `/market`.

    An imported connection is parked as if it had disconnected here, and resumes in the same way.
    """

    def __init__(
        self,
        config: SubscribingConfig,
        topics: TopicSubscriptions,
        subscribing: SubscribingService,
        subscriptions: Subscriptions,
        hub: Hub,
        instruments: Instruments,
        patterns: Patterns,
    ) -> None:
        self._config = config
        self._topics = topics
        self._subscribing = subscribing
        self._subscriptions = subscriptions
        self._hub = hub
        self._instruments = instruments
        self._patterns = patterns
        # Channels of exported connections that may have no subscribers any more.
        self._idle_channels: list[str] = []

    def park(self, connection_id: str) -> None:
        self._subscriptions.park(connection_id)
        self._hub.park(connection_id)

    async def is_allowed(self, connection_id: str, principal: Principal) -> bool:
        return await self._subscribing.is_allowed(connection_id, principal)

    def resume(self, connection_id: str, client: ResumingClient, first_frames: bytes) -> bool:
        for subscription in self._subscriptions.of_connection(connection_id):
            if not may_subscribe(client.principal, subscription.topic):
                return False
        if not self._hub.resume(connection_id, client.link, client.offset, first_frames):
            return False
        self._subscriptions.resume(connection_id)
        self._patterns.set_principal(connection_id, client.principal)
        self._patterns.refresh(connection_id)
        return True

    async def remove(self, connection_id: str, *, lost: bool) -> None:
        await self._subscribing.remove_connection(connection_id)

    def last_offset(self, connection_id: str) -> str:
        return self._hub.last_offset(connection_id)

    def export_parked(
        self, connection_id: str, owner: Owner, offset: str | None
    ) -> ConnectionState | None:
        topics = self._subscription_states(connection_id, offset)
        follows = self._instruments.is_followed_by(connection_id)
        if follows or self._patterns.of_connection(connection_id):
            # The other node would not know of instruments and patterns.
            topics = None
        self._instruments.unfollow(connection_id)
        self._patterns.remove_connection(connection_id)
        self._subscriptions.remove_connection(connection_id)
        self._idle_channels += self._hub.detach(connection_id)
        return None if topics is None else ConnectionState(connection_id, *owner, topics)

    async def release_idle(self) -> None:
        idle, self._idle_channels = self._idle_channels, []
        await release_each(idle, self._topics.close)

    async def import_parked(self, client: ResumingClient, state: ConnectionState) -> bool:
        topics = self._parse_topics(state)
        if topics is None:
            return False
        opened: OpenedTopics = []
        try:
            with ExitStack() as holds:
                for subscription, topic in zip(state.topics, topics, strict=True):
                    channel = await self._open(client.principal, topic, subscription.position)
                    holds.enter_context(self._topics.hold(channel.name))
                    opened.append((subscription, topic, channel))
                # No await from here on: messages published later follow the missed ones.
                return self._restore(client, state, opened)
        except FloorcastError:
            # The broker is down.
            return False
        finally:
            await release_each((channel.name for _, _, channel in opened), self._topics.close)

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
        owner = view_owner(principal)
        try:
            if topic.is_merged:
                channel, _ = await self._topics.open(name, topic, owner=owner)
                head = channel.state.position
                if head.epoch != seen.epoch or head.seq >= seen.seq:
                    # A merged stream needs only its state.
                    return channel
            # The broker replies only after this node has received all of these entries.
            channel, _ = await self._topics.open(name, topic, seen, owner=owner)
        except BaseException:
            await self._topics.close(name)
            raise
        return channel

    def _restore(
        self, client: ResumingClient, state: ConnectionState, opened: OpenedTopics
    ) -> bool:
        connection_id = state.connection_id
        if connection_id in self._subscriptions:
            # The id may be forged: never replace an existing connection.
            return False
        for _, _, channel in opened:
            self._topics.settle(channel)
        subscriptions = [
            ExportedSubscription(
                channel.name, each.position, each.interval_ms, each.needs_snapshot, each.stale
            )
            for each, _, channel in opened
        ]
        if not self._hub.restore(connection_id, client.link, client.offset, subscriptions):
            return False
        self._subscriptions.add_connection(connection_id, state.org, state.user_id)
        for exported, topic, _ in opened:
            subscription = self._subscriptions.request(connection_id, topic)
            self._subscriptions.activate(connection_id, subscription, exported.interval_ms)
        self._subscriptions.park(connection_id)
        return True
