"""Keeps a client's topics subscribed across connections, and fetches what readers miss."""

import logging
from collections.abc import Iterable, Mapping
from itertools import groupby, islice

from client_sdk.connection.clock import ServerClock
from client_sdk.connection.namespaces import Namespace, Worker
from client_sdk.connection.packets import encode, parse_reply
from client_sdk.contract import (
    FeedState,
    MarketMessage,
    Position,
    Reply,
    SinceTime,
    Stream,
    SubscriptionStatus,
    TopicReply,
)
from client_sdk.contract.names import MAX_TOPIC_CHARACTERS
from client_sdk.contract.replies import PatternReply, SubscribeReply
from client_sdk.errors import (
    FloorcastError,
    ProtocolError,
    TopicError,
    error_from_body,
    is_retryable,
)
from client_sdk.market.patterns import PatternSubscription, is_pattern
from client_sdk.reading.gaps import continuity_of
from client_sdk.reading.readers import Reader, TopicState
from client_sdk.reading.topic_subscription import Start, TopicSubscription
from client_sdk.stats import Counters

logger = logging.getLogger(__name__)

# The reply holds a state for each topic, so the request is bounded.
_TOPICS_PER_REQUEST = 100


class MarketSubscription(TopicSubscription[MarketMessage]):
    """One topic, its requested interval and the state of its feed."""

    def __init__(self, topic: str, stream: Stream, counters: Counters) -> None:
        super().__init__(topic, continuity_of(stream, is_view="@" in topic), counters)
        self.interval_ms: int | None = None
        # None until this connection has granted the subscription.
        self.feed_state: FeedState | None = None

    def on_disconnect(self) -> None:
        """Record that the subscription ended with its connection."""
        super().on_disconnect()
        self.feed_state = None


class Subscriptions:
    """The topics that this client's readers need, and one task that requests them."""

    def __init__(self, namespace: Namespace, counters: Counters, clock: ServerClock) -> None:
        self._namespace = namespace
        self._counters = counters
        self._clock = clock
        self._subscriptions: dict[str, MarketSubscription] = {}
        self._patterns: dict[str, PatternSubscription] = {}
        self._to_unsubscribe: set[str] = set()
        self._worker = Worker("subscriptions", namespace, self._sync)

    # --- readers

    def add(
        self,
        reader: Reader[MarketMessage],
        topics: Iterable[str],
        interval_ms: int = 0,
        since: Mapping[str, Position] | None = None,
        start: Start | None = None,
    ) -> None:
        """Add a reader of these topics; the shortest interval of all readers is requested.

        `since` holds the positions after which it reads, of topics that it read before; other
        kept streams are read from `start` on. A pattern is read as the topics that match.
        """
        if interval_ms < 0:
            raise ValueError("interval_ms must be 0 or more")
        streams = {topic: _stream_of(topic) for topic in topics}
        for name in tuple(streams):
            if is_pattern(name):
                del streams[name]
                self._add_pattern(reader, name, interval_ms)
        for topic, stream in streams.items():
            subscription = self._subscriptions.get(topic)
            if subscription is None:
                subscription = MarketSubscription(topic, stream, self._counters)
                self._subscriptions[topic] = subscription
                self._to_unsubscribe.discard(topic)
            if subscription.interval_ms is None or interval_ms < subscription.interval_ms:
                subscription.interval_ms = interval_ms
            subscription.add(reader, (since or {}).get(topic), start)
        self._worker.wake()

    def _add_pattern(self, reader: Reader[MarketMessage], name: str, interval_ms: int) -> None:
        pattern = self._patterns.get(name)
        if pattern is None:
            pattern = self._patterns[name] = PatternSubscription(name)
            self._to_unsubscribe.discard(name)
        pattern.readers[reader] = interval_ms
        pattern.needs_sync = True
        reader.expect_reply(name)

    def _join_matched(self, pattern: PatternSubscription, topic: str) -> MarketSubscription:
        """Let the readers of a pattern read a topic that matches it."""
        subscription = self._subscriptions.get(topic)
        for reader, interval_ms in pattern.readers.items():
            if topic not in reader.topics:
                self.add(reader, [topic], interval_ms)
        if subscription is None:
            subscription = self._subscriptions[topic]
        return subscription

    def remove(self, reader: Reader[MarketMessage]) -> None:
        """Remove a reader; a topic without readers is unsubscribed."""
        for pattern in tuple(self._patterns.values()):
            if pattern.readers.pop(reader, None) is not None and not pattern.readers:
                del self._patterns[pattern.name]
                self._to_unsubscribe.add(pattern.name)
                self._worker.wake()
        for topic in reader.topics:
            subscription = self._subscriptions.get(topic)
            if subscription is None:
                continue
            subscription.remove(reader)
            if not subscription.readers:
                del self._subscriptions[topic]
                self._to_unsubscribe.add(topic)
                self._worker.wake()

    def fetch_more(self, reader: Reader[MarketMessage]) -> None:
        """Fetch what did not fit into the reader's buffer."""
        for topic in reader.topics:
            subscription = self._subscriptions.get(topic)
            if subscription is not None and reader.is_behind(topic) and not subscription.is_syncing:
                subscription.needs_sync = True
                self._worker.wake()

    def resync(self, reader: Reader[MarketMessage], topic: str) -> None:
        """Reset the reader's position and fetch a snapshot."""
        reader.reset(topic)
        self._subscriptions[topic].needs_sync = True
        self._worker.wake()

    def is_syncing(self, topic: str) -> bool:
        """True if the server's state of the topic is missing or on its way."""
        subscription = self._subscriptions.get(topic)
        return subscription is None or subscription.needs_sync or subscription.is_syncing

    def feed_state(self, topic: str) -> FeedState | None:
        """The freshness of a topic's feed; None if unknown."""
        subscription = self._subscriptions.get(topic)
        return None if subscription is None else subscription.feed_state

    # --- callbacks of the namespace

    def set_feed_state(self, topic: str, state: FeedState) -> None:
        """Record the freshness of a topic's feed."""
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            subscription.feed_state = state
            subscription.notify()

    def end(self, topic: str, error: FloorcastError) -> None:
        """End a topic that the server has unsubscribed; its readers get the error."""
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            subscription.feed_state = None
            self._fail(subscription, error)

    def receive(self, message: MarketMessage) -> None:
        """Give a message to the readers of its topic."""
        subscription = self._subscriptions.get(message.topic)
        if subscription is None and self._patterns:
            self._receive_matched(message)
        elif subscription is not None and not subscription.receive(message):
            self._worker.wake()

    def _receive_matched(self, message: MarketMessage) -> None:
        """Begin to read a topic that is new to a pattern, with its first message."""
        topic = message.topic
        for pattern in self._patterns.values():
            if pattern.matches(topic) and message.type == "snapshot":
                subscription = self._join_matched(pattern, topic)
                subscription.begin_sync()
                state = TopicState(message.epoch, message.seq, False, message, ())
                subscription.feed_state = subscription.feed_state or FeedState.LIVE
                subscription.apply_state(state, shared=True)

    def on_disconnect(self) -> None:
        """Record that all subscriptions ended with the connection."""
        self._to_unsubscribe.clear()
        for pattern in self._patterns.values():
            pattern.needs_sync = True
        for subscription in self._subscriptions.values():
            subscription.on_disconnect()

    def on_join(self) -> None:
        """Request all topics on the new connection."""
        if self._subscriptions or self._patterns:
            self._worker.wake()

    def fail(self, error: FloorcastError | None) -> None:
        """End all readers; without an error if the client was closed."""
        readers = [each for pattern in self._patterns.values() for each in pattern.readers]
        for subscription in self._subscriptions.values():
            readers += subscription.readers
        for reader in dict.fromkeys(readers):
            reader.end(None if error is None else error.clone())

    async def close(self) -> None:
        """End its task."""
        await self._worker.close()

    # --- requests

    async def _sync(self) -> None:
        while self._to_unsubscribe:
            topics = frozenset(islice(self._to_unsubscribe, _TOPICS_PER_REQUEST))
            body = encode({"topics": sorted(topics)})
            await self._namespace.request(
                "unsubscribe", body, lambda text: parse_reply(Reply, text)
            )
            # A topic that was added again meanwhile needs a sync, and is requested below.
            self._to_unsubscribe -= topics
        for pattern in tuple(self._patterns.values()):
            if pattern.needs_sync:
                await self._subscribe_pattern(pattern)
        for batch in self._batches():
            await self._subscribe(batch)

    async def _subscribe_pattern(self, pattern: PatternSubscription) -> None:
        pattern.needs_sync = False
        request = encode({"topics": [pattern.name], "interval_ms": pattern.interval_ms})
        try:
            await self._namespace.request(
                "subscribe", request, lambda text: self._apply_matched(pattern, text)
            )
        except FloorcastError as error:
            if is_retryable(error):
                pattern.needs_sync = True
                raise
            for reader in tuple(pattern.readers):
                reader.end(error.clone())
                self.remove(reader)

    def _apply_matched(self, pattern: PatternSubscription, text: str) -> None:
        """Apply the reply before any message behind it."""
        reply = parse_reply(SubscribeReply, text).topics.get(pattern.name)
        if not isinstance(reply, PatternReply):
            raise ProtocolError(f"malformed reply: no {pattern.name}")
        if reply.limit is not None:
            logger.warning(
                "a pattern matches too many topics: %s are left out",
                reply.refused,
                extra={"pattern": pattern.name},
            )
        for topic, each in reply.topics.items():
            subscription = self._join_matched(pattern, topic)
            if each.status == SubscriptionStatus.CONNECTED.value and subscription.needs_sync:
                subscription.begin_sync()
                subscription.feed_state = each.state or FeedState.LIVE
                subscription.apply_state(self._topic_state(each), shared=True)
        for reader in pattern.readers:
            reader.reply_received(pattern.name)

    def _batches(self) -> list[list[MarketSubscription]]:
        """The subscriptions that need a sync, as requests of one interval each."""
        needed = [each for each in self._subscriptions.values() if each.needs_sync]
        batches = [[each] for each in needed if each.needs_own_request]
        shared = sorted((each for each in needed if not each.needs_own_request), key=_interval_ms)
        for _, group in groupby(shared, key=_interval_ms):
            subscriptions = list(group)
            batches += [
                subscriptions[start : start + _TOPICS_PER_REQUEST]
                for start in range(0, len(subscriptions), _TOPICS_PER_REQUEST)
            ]
        return batches

    async def _subscribe(self, batch: list[MarketSubscription]) -> None:
        since: dict[str, Position | SinceTime] = {}
        last = 0
        for subscription in batch:
            position, start = subscription.begin_sync(), subscription.start
            if position is not None:
                since[subscription.topic] = position
            elif start is not None:
                last = start.last
                if start.ts_ms is not None:
                    since[subscription.topic] = SinceTime(ts=start.ts_ms)
        body: dict[str, object] = {
            "topics": [each.topic for each in batch],
            "interval_ms": _interval_ms(batch[0]),
            "since": since,
        }
        # Older servers know no `last`.
        request = encode({**body, "last": last} if last else body)
        try:
            await self._namespace.request(
                "subscribe", request, lambda text: self._apply_reply(batch, text)
            )
        except FloorcastError as error:
            for subscription in batch:
                subscription.abort_sync()
            if is_retryable(error):
                raise
            for subscription in batch:
                self._fail(subscription, error)

    def _apply_reply(self, batch: list[MarketSubscription], text: str) -> None:
        """Apply the reply before any message behind it; raises if some topics need a retry."""
        replies = parse_reply(SubscribeReply, text, partial=True).topics
        if not replies:
            # A refusal of the whole request raises its error here.
            parse_reply(SubscribeReply, text)
        retryable: FloorcastError | None = None
        for subscription in batch:
            reply = replies.get(subscription.topic)
            if self._subscriptions.get(subscription.topic) is not subscription:
                # Its last reader has gone meanwhile.
                continue
            if reply is None or isinstance(reply, PatternReply):
                self._fail(subscription, ProtocolError(f"malformed reply: no {subscription.topic}"))
            elif reply.status != SubscriptionStatus.CONNECTED.value:
                refusal = _refusal_error(subscription.topic, reply)
                if is_retryable(refusal):
                    retryable = refusal
                else:
                    self._fail(subscription, refusal)
            else:
                # A `status` that came before the reply is as new.
                subscription.feed_state = subscription.feed_state or reply.state or FeedState.LIVE
                if not subscription.apply_state(self._topic_state(reply), shared=len(batch) > 1):
                    self._worker.wake()
        if retryable is not None:
            # `_subscribe` aborts the sync of those without a state: they are requested again.
            raise retryable

    def _topic_state(self, reply: TopicReply) -> TopicState[MarketMessage]:
        snapshot, missed = reply.snapshot, reply.missed
        for message in missed if snapshot is None else (snapshot, *missed):
            message.use_clock(self._clock)
        return TopicState(reply.epoch, reply.seq, reply.recovered, snapshot, missed)

    def _fail(self, subscription: MarketSubscription, error: FloorcastError) -> None:
        readers = tuple(subscription.readers)
        subscription.fail(error)
        for reader in readers:
            self.remove(reader)
        if subscription.feed_state is None:
            # It was never granted on this connection, so there is nothing to unsubscribe.
            self._to_unsubscribe.discard(subscription.topic)


def _interval_ms(subscription: MarketSubscription) -> int:
    return subscription.interval_ms or 0


def _refusal_error(topic: str, reply: TopicReply) -> FloorcastError:
    if reply.error is None:
        return TopicError(f"the server refused {topic}", code="topic.unknown")
    return error_from_body(reply.error)


def _stream_of(topic: str) -> Stream:
    # The server would refuse the whole request, with all its other topics.
    if len(topic) > MAX_TOPIC_CHARACTERS:
        raise TopicError(
            f"a topic name is limited to {MAX_TOPIC_CHARACTERS} characters", code="topic.unknown"
        )
    try:
        return Stream(topic.partition(":")[0])
    except ValueError:
        raise TopicError(f"unknown topic {topic}", code="topic.unknown") from None
