"""Keeps the topics of a client subscribed, across connections, with what each lacks."""

from collections.abc import Iterable
from itertools import groupby, islice

from client_sdk.connection.clock import ServerClock
from client_sdk.connection.namespaces import Namespace
from client_sdk.connection.packets import encode
from client_sdk.connection.worker import Worker
from client_sdk.contract import FeedState, Position, Stream, SubscriptionStatus
from client_sdk.contract.names import MAX_TOPIC_CHARACTERS
from client_sdk.contract.replies import Answer, SubscribeAnswer, TopicAnswer, read
from client_sdk.errors import FloorcastError, ProtocolError, TopicError, may_pass
from client_sdk.models import MarketMessage
from client_sdk.reading.gaps import chain_of
from client_sdk.reading.readers import Listener, State
from client_sdk.reading.topic_subscription import Subject
from client_sdk.stats import Counters

# So many in one request: its answer holds a state for each.
_TOPICS_A_REQUEST = 100


class TopicSubject(Subject[MarketMessage]):
    """One topic, and the pace that it is asked at."""

    def __init__(self, topic: str, stream: Stream, counters: Counters) -> None:
        super().__init__(topic, chain_of(stream), counters)
        self.interval_ms: int | None = None
        # Whether its feed speaks; None while nobody can tell.
        self.feed: FeedState | None = None

    def lose(self) -> None:
        """The connection is gone, and with it what was known of the feed."""
        super().lose()
        self.feed = None


class Subscriptions:
    """What is wanted of the server, and what it has granted on this connection."""

    def __init__(self, namespace: Namespace, counters: Counters, clock: ServerClock) -> None:
        self._namespace = namespace
        self._counters = counters
        self._clock = clock
        self._subjects: dict[str, TopicSubject] = {}
        self._ending: set[str] = set()
        self._worker = Worker("subscriptions", namespace, self._round)

    # --- who reads what

    def add(
        self, listener: Listener[MarketMessage], topics: Iterable[str], interval_ms: int = 0
    ) -> None:
        """Somebody reads these topics; the fastest pace that anybody asked for is asked for."""
        if interval_ms < 0:
            raise ValueError("an interval is 0 or more")
        streams = {topic: _stream_of(topic) for topic in topics}
        for topic, stream in streams.items():
            subject = self._subjects.get(topic)
            if subject is None:
                subject = TopicSubject(topic, stream, self._counters)
                self._subjects[topic] = subject
                self._ending.discard(topic)
            if subject.interval_ms is None or interval_ms < subject.interval_ms:
                subject.interval_ms = interval_ms
            subject.add(listener)
        self._worker.wake()

    def remove(self, listener: Listener[MarketMessage]) -> None:
        """Somebody reads no more; the last to go ends the subscription."""
        for topic in listener.topics:
            subject = self._subjects.get(topic)
            if subject is None:
                continue
            subject.remove(listener)
            if not subject.listeners:
                del self._subjects[topic]
                self._ending.add(topic)
                self._worker.wake()

    def refill(self, listener: Listener[MarketMessage]) -> None:
        """There is room again for what a topic has to say."""
        for topic in listener.topics:
            subject = self._subjects.get(topic)
            if subject is not None and listener.is_behind(topic) and not subject.asked:
                subject.lacks = True
                self._worker.wake()

    def resync(self, listener: Listener[MarketMessage], topic: str) -> None:
        """What a reader has is worth nothing: fetch a snapshot."""
        listener.restart(topic)
        self._subjects[topic].lacks = True
        self._worker.wake()

    def lacks(self, topic: str) -> bool:
        """Whether something of a topic has yet to come from the server."""
        subject = self._subjects.get(topic)
        return subject is None or subject.lacks or subject.asked

    def feed(self, topic: str) -> FeedState | None:
        """Whether a topic's feed speaks; None where nobody can tell."""
        subject = self._subjects.get(topic)
        return None if subject is None else subject.feed

    # --- what comes

    def set_feed(self, topic: str, feed: FeedState) -> None:
        """The server says whether a feed speaks."""
        subject = self._subjects.get(topic)
        if subject is not None:
            subject.feed = feed

    def hear(self, message: MarketMessage) -> None:
        """Bring a message to all who read its topic."""
        subject = self._subjects.get(message.topic)
        if subject is not None and not subject.hear(message):
            self._worker.wake()

    def lost(self) -> None:
        """The connection is gone: on the next nothing is subscribed."""
        self._ending.clear()
        for subject in self._subjects.values():
            subject.lose()

    def joined(self) -> None:
        """There is a connection."""
        if self._subjects:
            self._worker.wake()

    def fail(self, error: FloorcastError | None) -> None:
        """The namespace is gone for good; without an error because the client was closed."""
        for subject in tuple(self._subjects.values()):
            for listener in tuple(subject.listeners):
                listener.end(None if error is None else error.again())

    async def close(self) -> None:
        """End the task."""
        await self._worker.close()

    # --- what is asked

    async def _round(self) -> None:
        while self._ending:
            ending = frozenset(islice(self._ending, _TOPICS_A_REQUEST))
            body = encode({"topics": sorted(ending)})
            await self._namespace.ask("unsubscribe", body, lambda text: read(Answer, text))
            # One that was wanted again meanwhile lacks everything, and is asked for below.
            self._ending -= ending
        for batch in self._batches():
            await self._subscribe(batch)

    def _batches(self) -> list[list[TopicSubject]]:
        """What lacks something, in requests of one pace each."""
        lacking = [each for each in self._subjects.values() if each.lacks]
        batches = [[each] for each in lacking if each.alone]
        rest = sorted((each for each in lacking if not each.alone), key=_pace)
        for _, group in groupby(rest, key=_pace):
            subjects = list(group)
            batches += [
                subjects[start : start + _TOPICS_A_REQUEST]
                for start in range(0, len(subjects), _TOPICS_A_REQUEST)
            ]
        return batches

    async def _subscribe(self, batch: list[TopicSubject]) -> None:
        since: dict[str, Position] = {}
        for subject in batch:
            position = subject.ask()
            if position is not None:
                since[subject.key] = position
        request = encode(
            {
                "topics": [each.key for each in batch],
                "interval_ms": _pace(batch[0]),
                "since": since,
            }
        )
        try:
            await self._namespace.ask("subscribe", request, lambda text: self._take(batch, text))
        except FloorcastError as error:
            for subject in batch:
                subject.unanswered()
            if may_pass(error):
                raise
            for subject in batch:
                self._fail(subject, error)

    def _take(self, batch: list[TopicSubject], text: str) -> None:
        """Take the answer before any message behind it."""
        answers = read(SubscribeAnswer, text).topics
        passing: FloorcastError | None = None
        for subject in batch:
            answer = answers.get(subject.key)
            if self._subjects.get(subject.key) is not subject:
                # Nobody wants it any more.
                continue
            if answer is None:
                self._fail(subject, ProtocolError(f"nothing was said of {subject.key}"))
            elif answer.status != SubscriptionStatus.CONNECTED.value:
                refused = _refusal(subject.key, answer)
                if may_pass(refused):
                    passing = refused
                else:
                    self._fail(subject, refused)
            else:
                subject.feed = subject.feed or FeedState.LIVE
                if not subject.answer(self._state(answer), shared=len(batch) > 1):
                    self._worker.wake()
        if passing is not None:
            # Those that have no answer yet are asked for again.
            raise passing

    def _state(self, answer: TopicAnswer) -> State[MarketMessage]:
        snapshot, missed = answer.snapshot, answer.missed
        for message in missed if snapshot is None else (snapshot, *missed):
            message.timed_by(self._clock)
        return State(answer.epoch, answer.seq, answer.recovered, snapshot, missed)

    def _fail(self, subject: TopicSubject, error: FloorcastError) -> None:
        listeners = tuple(subject.listeners)
        subject.fail(error)
        for listener in listeners:
            self.remove(listener)
        if subject.feed is None:
            # It never was subscribed on this connection.
            self._ending.discard(subject.key)


def _pace(subject: TopicSubject) -> int:
    return subject.interval_ms or 0


def _refusal(topic: str, answer: TopicAnswer) -> FloorcastError:
    if answer.error is None:
        return TopicError(f"{topic} was refused", code="topic.unknown")
    return answer.error.error()


def _stream_of(topic: str) -> Stream:
    # The server would refuse the request, and with it all the others in it.
    if len(topic) > MAX_TOPIC_CHARACTERS:
        raise TopicError("the name of a topic is too long", code="topic.unknown")
    try:
        return Stream(topic.partition(":")[0])
    except ValueError:
        raise TopicError(f"there is no topic {topic}", code="topic.unknown") from None
