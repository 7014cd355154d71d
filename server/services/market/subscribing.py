"""Subscribes connections to topics; each topic of a request succeeds or fails alone."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from client_sdk.contract import (
    INTERVALS_MS,
    MARKET_NAMESPACE,
    ErrorCode,
    FeedState,
    Scope,
    SubscriptionStatus,
)
from server.access import AuthorizationRule, Principal, find_refusals
from server.core.errors import AccessError, FloorcastError, LimitError, RequestError
from server.core.market.patterns import TopicPattern
from server.core.market.subscriptions import Subscription, Subscriptions
from server.core.market.topics import Topic, channel_for
from server.core.wire.packets import event_head
from server.core.wire.strict_json import dumps
from server.delivery import Hub
from server.delivery.channel import Channel
from server.ports import Link
from server.services.market.instruments import Instruments
from server.services.market.past import Newest, Past, Since
from server.services.market.patterns import Patterns, PatternSubscription
from server.services.market.replies import SubscribeReply, connected_reply, subscribe_reply
from server.services.market.subscribing_config import SubscribingConfig
from server.services.market.topic_subscriptions import (
    TopicSubscriptions,
    can_read,
    state_of,
)
from server.services.market.view_shares import view_owner
from server.services.node_subscriptions import Missed, release_each

# After so many topics of one request others get their turn.
_TOPICS_PER_TURN = 32

_NO_PAST = Past()

TopicReplies = dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class _OpenTopic:
    """A topic that this node receives, before the connection is subscribed to it."""

    subscription: Subscription
    channel: Channel
    past: Past
    missed: Missed | None
    newest: Newest | None


class SubscribingService:
    """The topic subscriptions of this node's connections."""

    def __init__(
        self,
        config: SubscribingConfig,
        topics: TopicSubscriptions,
        subscriptions: Subscriptions,
        hub: Hub,
        instruments: Instruments,
        patterns: Patterns,
        rule: AuthorizationRule | None = None,
    ) -> None:
        self._config = config
        self._topics = topics
        self._subscriptions = subscriptions
        self._hub = hub
        self._instruments = instruments
        self._patterns = patterns
        self._rule = rule or AuthorizationRule()
        # Subscriptions with a position: what the client had missed was known, or not.
        self.recovered = 0
        self.not_recovered = 0

    def add_connection(
        self, connection_id: str, principal: Principal, link: Link, *, numbered: bool = False
    ) -> None:
        """Register a connection; if `numbered`, its events carry offsets for recovery."""
        self._subscriptions.add_connection(connection_id, principal.org, principal.user_id)
        self._hub.attach(connection_id, link, numbered=numbered)

    async def remove_connection(self, connection_id: str) -> None:
        """Remove a connection with its subscriptions."""
        self._instruments.unfollow(connection_id)
        self._patterns.remove_connection(connection_id)
        self._subscriptions.remove_connection(connection_id)
        await release_each(self._hub.detach(connection_id), self._topics.close)

    async def subscribe(
        self,
        connection_id: str,
        principal: Principal,
        topics: Iterable[str],
        interval_ms: int = 0,
        since: Mapping[str, Since] | None = None,
        last: int = 0,
    ) -> TopicReplies:
        """Subscribe to each topic and return a reply for each; a refused topic has an `error`.

        `since` holds the last position that the client has seen of a topic, or a time. Its reply
        has every message after that, or `recovered: false` and the `last` messages or a snapshot.
        A pattern such as `PRICE:*` is answered with the replies of the topics that match now; a
        topic that appears later begins with a snapshot.
        """
        names = dict.fromkeys(topics)
        if not any(map(TopicPattern.is_one, names)):
            for name in names:
                self._patterns.release(connection_id, name)
            return await self._subscribe(connection_id, principal, names, interval_ms, since, last)
        replies: TopicReplies = {name: {} for name in names}
        intervals = {name: interval_ms for name in names if not TopicPattern.is_one(name)}
        for name in intervals:
            self._patterns.release(connection_id, name)
        expanded: dict[str, tuple[PatternSubscription, list[str], int]] = {}
        for name in filter(TopicPattern.is_one, names):
            try:
                expanded[name] = await self._expand(
                    connection_id, principal, name, interval_ms, intervals
                )
            except FloorcastError as error:
                replies[name] = _error_reply(error)
        found = await self._subscribe(connection_id, principal, intervals, intervals, since, last)
        for name in replies.keys() & found.keys():
            replies[name] = found[name]
        for name, (pattern, matched, refused_count) in expanded.items():
            own = {each: found[each] for each in matched}
            pattern.topics |= {each for each, reply in own.items() if "error" not in reply}
            replies[name] = pattern_reply(own, refused_count, self._config.max_topics)
        return replies

    async def _expand(
        self,
        connection_id: str,
        principal: Principal,
        name: str,
        interval_ms: int,
        intervals: dict[str, int],
    ) -> tuple[PatternSubscription, list[str], int]:
        """Subscribe to a pattern; adds its topics to `intervals`, as many as are allowed.

        Returns those that are not subscribed otherwise, and how many are too many.
        """
        self._check_connected(connection_id)
        pattern = self._patterns.add(connection_id, principal, name, interval_ms)
        matching = await self._patterns.matching(pattern)
        self._check_connected(connection_id)
        own = {
            each.topic.name
            for each in self._subscriptions.of_connection(connection_id)
            if each.topic.name not in pattern.topics
        }
        matched = [
            each.name for each in matching if each.name not in own and each.name not in intervals
        ]
        room = len(matched)
        if self._config.max_topics:
            is_new = [each for each in intervals if each not in own]
            room = max(0, self._config.max_topics - len(own) - len(is_new))
        intervals.update(dict.fromkeys(matched[:room], interval_ms))
        return pattern, matched[:room], len(matched[room:])

    async def join_matched(self) -> None:
        """Subscribe connections to the new topics that match their patterns."""
        joined_count = 0
        async for pattern, topic in self._patterns.pop_waiting():
            connection_id, name = pattern.connection_id, topic.name
            is_gone = connection_id not in self._hub or not self._patterns.is_current(pattern)
            # A parked connection gets it when it resumes.
            if is_gone or self._is_subscribed(connection_id, name):
                continue
            joined_count += 1
            if joined_count % _TOPICS_PER_TURN == 0:
                await asyncio.sleep(0)
            try:
                await self._join_matched(pattern, topic)
            except FloorcastError as error:
                if connection_id in self._hub:
                    self._hub.send_to(connection_id, _error_status(topic, error))
                if error.code is ErrorCode.SERVER_OVERLOADED:
                    # The broker is down: the others would wait for it as long.
                    self._patterns.refresh(connection_id)
                    self._patterns.on_topic(topic)
                    return

    async def _join_matched(self, pattern: PatternSubscription, topic: Topic) -> None:
        connection_id = pattern.connection_id
        self._check_allowed(connection_id, pattern.principal, topic, 0)
        await self._rule.check_subscribe(pattern.principal, topic.source.name)
        opened = await self._open(connection_id, pattern.principal, topic, Past())
        try:
            if self._patterns.is_current(pattern):
                self._start_delivery(connection_id, opened, pattern.interval_ms, 0)
                # No reply has its position: the snapshot does.
                self._hub.mark_reply_sent(connection_id)
                if state_of(opened.channel).latest is not None:
                    self._hub.schedule_snapshot(connection_id, opened.channel)
                pattern.topics.add(topic.name)
        finally:
            self._subscriptions.fail(opened.subscription)
            await self._topics.close(opened.channel.name)

    async def _subscribe(
        self,
        connection_id: str,
        principal: Principal,
        topics: Iterable[str],
        interval_ms: int | Mapping[str, int],
        since: Mapping[str, Since] | None,
        last: int,
    ) -> TopicReplies:
        replies: TopicReplies = {name: {} for name in topics}
        asked = self._names_to_ask(connection_id, principal, replies)
        refusals = await find_refusals(self._rule.check_subscribe, principal, asked)
        opened: dict[str, _OpenTopic] = {}
        new_count = 0
        try:
            with ExitStack() as holds:
                for index, name in enumerate(replies, 1):
                    if index % _TOPICS_PER_TURN == 0:
                        await asyncio.sleep(0)
                    try:
                        topic = Topic.parse(name)
                        past = Past(None if since is None else since.get(name), last)
                        self._check_allowed(connection_id, principal, topic, new_count)
                        if topic.source.name in refusals:
                            raise refusals[topic.source.name]
                        if topic.source.name not in asked:
                            # It has room only because another one was refused.
                            await self._rule.check_subscribe(principal, topic.source.name)
                        each = await self._open(connection_id, principal, topic, past)
                    except FloorcastError as error:
                        replies[name] = _error_reply(error)
                        continue
                    if len(replies) > 1:
                        # Keep the channel, which may have no subscriber yet, while others open.
                        holds.enter_context(self._topics.hold(each.channel.name))
                    opened[name] = each
                    new_count += not self._is_subscribed(connection_id, each.channel.name)
                # No await from here on: messages published later follow this reply.
                free_bytes = self._config.max_reply_bytes
                for name, each in opened.items():
                    try:
                        asked_ms = (
                            interval_ms if isinstance(interval_ms, int) else interval_ms[name]
                        )
                        reply = self._start_delivery(
                            connection_id, each, asked_ms, max(0, free_bytes)
                        )
                    except FloorcastError as error:
                        replies[name] = _error_reply(error)
                        continue
                    free_bytes -= reply.used_bytes
                    replies[name] = reply.body
        finally:
            # A no-op for topics that are subscribed by now.
            for each in opened.values():
                self._subscriptions.fail(each.subscription)
            unneeded = (each for each in opened.values() if not each.channel.is_needed)
            names = [each.channel.name for each in unneeded]
            await release_each(names, self._topics.close)
        self._hub.mark_reply_sent(connection_id)
        return replies

    def _names_to_ask(
        self, connection_id: str, principal: Principal, names: Iterable[str]
    ) -> dict[str, None]:
        """The topics of a request, in its order, about which the rule must be asked."""
        asked: dict[str, None] = {}
        if not self._rule.asks_subscribe:
            return asked
        new_count = 0
        for name in names:
            with suppress(FloorcastError):
                topic = Topic.parse(name)
                self._check_allowed(connection_id, principal, topic, new_count)
                asked[topic.source.name] = None
                channel = channel_for(topic, principal.org, principal.user_id)
                new_count += not self._is_subscribed(connection_id, channel)
        return asked

    def _start_delivery(
        self, connection_id: str, opened: "_OpenTopic", interval_ms: int, max_bytes: int
    ) -> SubscribeReply:
        """Subscribe the connection at the hub and return its reply."""
        topic, channel = opened.subscription.topic, opened.channel
        self._topics.settle(channel)
        # Flushing may find the connection broken and remove it.
        self._hub.flush_channel(channel)
        self._check_connected(connection_id)
        granted = _granted_interval_ms(interval_ms) if topic.is_merged else 0
        actual_ms = self._hub.subscribe(connection_id, channel, granted)
        # Another connection of the same user may have failed the subscription meanwhile.
        subscription = self._subscriptions.request(connection_id, topic)
        self._subscriptions.activate(connection_id, subscription, granted)
        reply = subscribe_reply(
            channel,
            actual_ms,
            past=opened.past,
            missed=opened.missed,
            newest=opened.newest,
            known=self._instruments.table.knows(topic),
            max_bytes=max_bytes,
        )
        if opened.past.since is not None:
            is_recovered = bool(reply.body["recovered"])
            self.recovered += is_recovered
            self.not_recovered += not is_recovered
        if reply.snapshot_pending:
            self._hub.schedule_snapshot(connection_id, channel)
        return reply

    async def unsubscribe(
        self, connection_id: str, principal: Principal, topics: Iterable[str]
    ) -> TopicReplies:
        """Unsubscribe from topics; a no-op for topics without a subscription."""
        replies: TopicReplies = {}
        for index, name in enumerate(dict.fromkeys(topics), 1):
            if index % _TOPICS_PER_TURN == 0:
                await asyncio.sleep(0)
            try:
                if TopicPattern.is_one(name):
                    await self._unsubscribe_pattern(connection_id, principal, name)
                else:
                    self._patterns.release(connection_id, name)
                    await self._unsubscribe_topic(connection_id, principal, Topic.parse(name))
            except FloorcastError as error:
                replies[name] = _error_reply(error)
                continue
            replies[name] = {"status": SubscriptionStatus.DISCONNECTED.value}
        return replies

    async def _unsubscribe_pattern(
        self, connection_id: str, principal: Principal, name: str
    ) -> None:
        TopicPattern.parse(name)
        left = self._patterns.remove(connection_id, name)
        for index, topic in enumerate(sorted(left), 1):
            if index % _TOPICS_PER_TURN == 0:
                await asyncio.sleep(0)
            await self._unsubscribe_topic(connection_id, principal, Topic.parse(topic))

    async def _unsubscribe_topic(
        self, connection_id: str, principal: Principal, topic: Topic
    ) -> None:
        name = channel_for(topic, principal.org, principal.user_id)
        if self._unsubscribe(connection_id, topic, name):
            await self._topics.close(name)

    async def is_allowed(self, connection_id: str, principal: Principal) -> bool:
        """Whether the application's rule allows all topics of a connection."""
        return not await self._find_refusals(connection_id, principal)

    async def end_forbidden(self, connection_id: str, principal: Principal) -> TopicReplies:
        """End the subscriptions of a connection that its refreshed token no longer allows.

        Returns a reply with the error for each of them; the client also gets it as `status`.
        """
        self._instruments.set_principal(connection_id, principal)
        self._patterns.set_principal(connection_id, principal)
        forbidden: dict[Subscription, FloorcastError] = {}
        for subscription in self._subscriptions.of_connection(connection_id):
            if not may_subscribe(principal, subscription.topic):
                forbidden[subscription] = _forbidden(subscription.topic)
                self._end(connection_id, subscription, forbidden[subscription])
        # Awaits only once all these have ended: no message may come of them meanwhile.
        try:
            refusals = await self._find_refusals(connection_id, principal)
            for subscription in self._subscriptions.of_connection(connection_id):
                error = refusals.get(subscription.topic.source.name)
                if error is not None:
                    forbidden[subscription] = error
                    self._end(connection_id, subscription, error)
        finally:
            # The rule may fail, or the client leave meanwhile.
            await release_each((each.channel for each in forbidden), self._topics.close)
        return {each.topic.name: _error_reply(error) for each, error in forbidden.items()}

    async def _find_refusals(
        self, connection_id: str, principal: Principal
    ) -> dict[str, FloorcastError]:
        """The subscribed topics of a connection that the rule refuses."""
        if not self._rule.asks_subscribe:
            return {}
        names = {
            each.topic.source.name for each in self._subscriptions.of_connection(connection_id)
        }
        return await find_refusals(self._rule.check_subscribe, principal, names)

    def _end(self, connection_id: str, subscription: Subscription, error: FloorcastError) -> None:
        self._unsubscribe(connection_id, subscription.topic, subscription.channel)
        self._hub.send_to(connection_id, _error_status(subscription.topic, error))

    def subscriptions(self, connection_id: str) -> TopicReplies:
        """The connection's subscribed topics with their positions."""
        replies: TopicReplies = {}
        for subscription in self._subscriptions.of_connection(connection_id):
            channel = self._hub.channel(subscription.channel)
            if channel is not None:
                interval_and_seq = self._hub.interval_and_seq(connection_id, channel)
                replies[subscription.topic.name] = connected_reply(
                    channel,
                    *interval_and_seq,
                    known=self._instruments.table.knows(subscription.topic),
                )
        for pattern in self._patterns.of_connection(connection_id):
            replies[pattern.name] = {
                "status": SubscriptionStatus.CONNECTED.value,
                "matched": len(pattern.topics),
                "topics": {},
            }
        return replies

    def _unsubscribe(self, connection_id: str, topic: Topic, channel_name: str) -> bool:
        channel = self._hub.channel(channel_name)
        if not self._subscriptions.unsubscribe(connection_id, topic) or channel is None:
            return False
        self._hub.unsubscribe(connection_id, channel)
        return True

    async def _open(
        self, connection_id: str, principal: Principal, topic: Topic, past: Past
    ) -> _OpenTopic:
        """Open a topic, with the entries of the requested past."""
        subscription = self._subscriptions.request(connection_id, topic)
        name = subscription.channel
        # A merged stream recovers by its snapshot, not by its entries.
        needed = _NO_PAST if topic.is_merged else past
        channel = self._hub.channel(name)
        if channel is not None and topic.view is None and needed == _NO_PAST:
            # The usual case: the node receives the topic already, so nothing has to be awaited.
            return _OpenTopic(subscription, channel, past, None, None)
        try:
            with self._topics.hold(name):
                channel, missed = await self._topics.open(
                    name, topic, needed.position, owner=view_owner(principal)
                )
                newest = await self._topics.newest(name, needed)
            self._check_connected(connection_id)
        except BaseException:
            # Includes a connection that ended during the broker's reply.
            self._subscriptions.fail(subscription)
            await self._topics.close(name)
            raise
        return _OpenTopic(subscription, channel, past, missed, newest)

    def _check_allowed(
        self,
        connection_id: str,
        principal: Principal,
        topic: Topic,
        new_count: int,
    ) -> None:
        """Raise if the token does not allow the topic, or if the connection has too many."""
        if not can_read(principal, topic):
            raise _forbidden(topic)
        self._check_connected(connection_id)
        count = self._subscriptions.count_of(connection_id) + new_count
        name = channel_for(topic, principal.org, principal.user_id)
        is_full = 0 < self._config.max_topics <= count
        if is_full and not self._is_subscribed(connection_id, name):
            raise _too_many(self._config.max_topics)

    def _is_subscribed(self, connection_id: str, name: str) -> bool:
        return self._subscriptions.is_subscribed(connection_id, name)

    def _check_connected(self, connection_id: str) -> None:
        if connection_id not in self._hub:
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")


def pattern_reply(topics: TopicReplies, refused_count: int, max_topics: int) -> dict[str, object]:
    """The reply to a pattern; if too many topics match, with an error about the others."""
    reply: dict[str, object] = {
        "status": SubscriptionStatus.CONNECTED.value,
        "matched": len(topics),
        "topics": topics,
    }
    if refused_count:
        reply["refused"] = refused_count
        reply["limit"] = _too_many(max_topics).body()
    return reply


def _too_many(max_topics: int) -> LimitError:
    return LimitError(
        ErrorCode.LIMIT_TOPICS,
        f"a connection may subscribe to at most {max_topics} topics",
        details={"limit": max_topics},
    )


def subscribe_result(replies: TopicReplies) -> dict[str, object]:
    """The reply to `subscribe`: `ok` unless every topic is refused, and then the first error."""
    errors = [each["error"] for each in replies.values() if "error" in each]
    if len(errors) < len(replies):
        return {"ok": True, "topics": replies}
    return {"ok": False, "error": errors[0], "topics": replies}


def _granted_interval_ms(interval_ms: int) -> int:
    """The shortest offered interval that is not below the requested one, else the longest."""
    return next((each for each in INTERVALS_MS if each >= interval_ms), INTERVALS_MS[-1])


def may_subscribe(principal: Principal, topic: Topic) -> bool:
    return principal.allows(Scope.MARKET_READ) and can_read(principal, topic)


def _forbidden(topic: Topic) -> AccessError:
    return AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {topic.name}")


def _error_status(topic: Topic, error: FloorcastError) -> bytes:
    """A `status` event without its closing bracket: the client's offset may follow."""
    body: dict[str, object] = {
        "stream": topic.stream.value,
        "symbol": topic.symbol,
        **({} if topic.view is None else {"view": topic.view.text}),
        "state": FeedState.ERROR.value,
        "error": error.body(),
    }
    return event_head(MARKET_NAMESPACE, "status", dumps(body))


def _error_reply(error: FloorcastError) -> dict[str, object]:
    return {"status": SubscriptionStatus.ERROR.value, "error": error.body()}
