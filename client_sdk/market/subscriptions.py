"""Keeps the topics of a client subscribed, across connections, with what each lacks."""

from collections.abc import Iterable
from itertools import groupby, islice

from client_sdk.connection.clock import ServerClock
from client_sdk.connection.namespaces import Namespace
from client_sdk.connection.packets import encode
from client_sdk.connection.worker import Worker
from client_sdk.contract import FeedState, Position, Stream, SubscriptionStatus
from client_sdk.contract.names import MAX_TOPIC_CHARACTERS
from client_sdk.contract.replies import Reply, SubscribeReply, TopicReply, parse_reply
from client_sdk.errors import FloorcastError, ProtocolError, TopicError, is_retryable
from client_sdk.models import MarketMessage
from client_sdk.reading.gaps import continuity_of
from client_sdk.reading.readers import Reader, TopicState
from client_sdk.reading.topic_subscription import TopicSubscription
from client_sdk.stats import Counters

# So many in one request: its answer holds a state for each.
_TOPICS_PER_REQUEST = 100


class MarketSubscription(TopicSubscription[MarketMessage]):
    """One topic, and the pace that it is asked at."""

    def __init__(self, topic: str, stream: Stream, counters: Counters) -> None:
        super().__init__(topic, continuity_of(stream), counters)
        self.interval_ms: int | None = None
        # Whether its feed speaks; None while nobody can tell.
        self.feed_state: FeedState | None = None

    def on_disconnect(self) -> None:
        """The connection is gone, and with it what was known of the feed."""
        super().on_disconnect()
        self.feed_state = None


class Subscriptions:
    """What is wanted of the server, and what it has granted on this connection."""

    def __init__(self, namespace: Namespace, counters: Counters, clock: ServerClock) -> None:
        self._namespace = namespace
        self._counters = counters
        self._clock = clock
        self._subscriptions: dict[str, MarketSubscription] = {}
        self._to_unsubscribe: set[str] = set()
        self._worker = Worker("subscriptions", namespace, self._sync)

    # --- who reads what

    def add(
        self, listener: Reader[MarketMessage], topics: Iterable[str], interval_ms: int = 0
    ) -> None:
        """Somebody reads these topics; the fastest pace that anybody asked for is asked for."""
        if interval_ms < 0:
            raise ValueError("an interval is 0 or more")
        streams = {topic: _stream_of(topic) for topic in topics}
        for topic, stream in streams.items():
            subject = self._subscriptions.get(topic)
            if subject is None:
                subject = MarketSubscription(topic, stream, self._counters)
                self._subscriptions[topic] = subject
                self._to_unsubscribe.discard(topic)
            if subject.interval_ms is None or interval_ms < subject.interval_ms:
                subject.interval_ms = interval_ms
            subject.add(listener)
        self._worker.wake()

    def remove(self, listener: Reader[MarketMessage]) -> None:
        """Somebody reads no more; the last to go ends the subscription."""
        for topic in listener.topics:
            subject = self._subscriptions.get(topic)
            if subject is None:
                continue
            subject.remove(listener)
            if not subject.readers:
                del self._subscriptions[topic]
                self._to_unsubscribe.add(topic)
                self._worker.wake()

    def fetch_more(self, listener: Reader[MarketMessage]) -> None:
        """There is room again for what a topic has to say."""
        for topic in listener.topics:
            subject = self._subscriptions.get(topic)
            if subject is not None and listener.is_behind(topic) and not subject.is_syncing:
                subject.needs_sync = True
                self._worker.wake()

    def resync(self, listener: Reader[MarketMessage], topic: str) -> None:
        """What a reader has is worth nothing: fetch a snapshot."""
        listener.reset(topic)
        self._subscriptions[topic].needs_sync = True
        self._worker.wake()

    def is_syncing(self, topic: str) -> bool:
        """Whether something of a topic has yet to come from the server."""
        subject = self._subscriptions.get(topic)
        return subject is None or subject.needs_sync or subject.is_syncing

    def feed_state(self, topic: str) -> FeedState | None:
        """Whether a topic's feed speaks; None where nobody can tell."""
        subject = self._subscriptions.get(topic)
        return None if subject is None else subject.feed_state

    # --- what comes

    def set_feed_state(self, topic: str, state: FeedState) -> None:
        """The server says whether a feed speaks."""
        subject = self._subscriptions.get(topic)
        if subject is not None:
            subject.feed_state = state

    def receive(self, message: MarketMessage) -> None:
        """Bring a message to all who read its topic."""
        subject = self._subscriptions.get(message.topic)
        if subject is not None and not subject.receive(message):
            self._worker.wake()

    def on_disconnect(self) -> None:
        """The connection is gone: on the next nothing is subscribed."""
        self._to_unsubscribe.clear()
        for subject in self._subscriptions.values():
            subject.on_disconnect()

    def on_join(self) -> None:
        """There is a connection."""
        if self._subscriptions:
            self._worker.wake()

    def fail(self, error: FloorcastError | None) -> None:
        """The namespace is gone for good; without an error because the client was closed."""
        for subject in tuple(self._subscriptions.values()):
            for listener in tuple(subject.readers):
                listener.end(None if error is None else error.clone())

    async def close(self) -> None:
        """End the task."""
        await self._worker.close()

    # --- what is asked

    async def _sync(self) -> None:
        while self._to_unsubscribe:
            ending = frozenset(islice(self._to_unsubscribe, _TOPICS_PER_REQUEST))
            body = encode({"topics": sorted(ending)})
            await self._namespace.request(
                "unsubscribe", body, lambda text: parse_reply(Reply, text)
            )
            # One that was wanted again meanwhile lacks everything, and is asked for below.
            self._to_unsubscribe -= ending
        for batch in self._batches():
            await self._subscribe(batch)

    def _batches(self) -> list[list[MarketSubscription]]:
        """What lacks something, in requests of one pace each."""
        lacking = [each for each in self._subscriptions.values() if each.needs_sync]
        batches = [[each] for each in lacking if each.needs_own_request]
        rest = sorted((each for each in lacking if not each.needs_own_request), key=_interval_ms)
        for _, group in groupby(rest, key=_interval_ms):
            subjects = list(group)
            batches += [
                subjects[start : start + _TOPICS_PER_REQUEST]
                for start in range(0, len(subjects), _TOPICS_PER_REQUEST)
            ]
        return batches

    async def _subscribe(self, batch: list[MarketSubscription]) -> None:
        since: dict[str, Position] = {}
        for subject in batch:
            position = subject.begin_sync()
            if position is not None:
                since[subject.topic] = position
        request = encode(
            {
                "topics": [each.topic for each in batch],
                "interval_ms": _interval_ms(batch[0]),
                "since": since,
            }
        )
        try:
            await self._namespace.request(
                "subscribe", request, lambda text: self._apply_reply(batch, text)
            )
        except FloorcastError as error:
            for subject in batch:
                subject.abort_sync()
            if is_retryable(error):
                raise
            for subject in batch:
                self._fail(subject, error)

    def _apply_reply(self, batch: list[MarketSubscription], text: str) -> None:
        """Take the answer before any message behind it."""
        answers = parse_reply(SubscribeReply, text).topics
        passing: FloorcastError | None = None
        for subject in batch:
            answer = answers.get(subject.topic)
            if self._subscriptions.get(subject.topic) is not subject:
                # Nobody wants it any more.
                continue
            if answer is None:
                self._fail(subject, ProtocolError(f"nothing was said of {subject.topic}"))
            elif answer.status != SubscriptionStatus.CONNECTED.value:
                refused = _refusal_error(subject.topic, answer)
                if is_retryable(refused):
                    passing = refused
                else:
                    self._fail(subject, refused)
            else:
                subject.feed_state = subject.feed_state or FeedState.LIVE
                if not subject.apply_state(self._topic_state(answer), shared=len(batch) > 1):
                    self._worker.wake()
        if passing is not None:
            # Those that have no answer yet are asked for again.
            raise passing

    def _topic_state(self, answer: TopicReply) -> TopicState[MarketMessage]:
        snapshot, missed = answer.snapshot, answer.missed
        for message in missed if snapshot is None else (snapshot, *missed):
            message.use_clock(self._clock)
        return TopicState(answer.epoch, answer.seq, answer.recovered, snapshot, missed)

    def _fail(self, subject: MarketSubscription, error: FloorcastError) -> None:
        listeners = tuple(subject.readers)
        subject.fail(error)
        for listener in listeners:
            self.remove(listener)
        if subject.feed_state is None:
            # It never was subscribed on this connection.
            self._to_unsubscribe.discard(subject.topic)


def _interval_ms(subject: MarketSubscription) -> int:
    return subject.interval_ms or 0


def _refusal_error(topic: str, answer: TopicReply) -> FloorcastError:
    if answer.error is None:
        return TopicError(f"{topic} was refused", code="topic.unknown")
    return answer.error.to_error()


def _stream_of(topic: str) -> Stream:
    # The server would refuse the request, and with it all the others in it.
    if len(topic) > MAX_TOPIC_CHARACTERS:
        raise TopicError("the name of a topic is too long", code="topic.unknown")
    try:
        return Stream(topic.partition(":")[0])
    except ValueError:
        raise TopicError(f"there is no topic {topic}", code="topic.unknown") from None
