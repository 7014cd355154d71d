"""Readers of a tape: of messages, and of a book."""

import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase

from client_sdk.contract import AnyMessage, MarketMessage, Position, Stream
from client_sdk.market.live_book import BookReader, BookSource
from client_sdk.market.patterns import is_pattern
from client_sdk.reading.gaps import CheckResult, Gap, GapReason, GapTracker, continuity_of
from client_sdk.reading.readers import Reader
from client_sdk.replay.tape import Tape
from client_sdk.stats import Counters


class ReplayReader(Reader[MarketMessage]):
    """Gets the messages of its topics and patterns from a tape.

    Its buffer needs no bound: the tape moves on once it is empty.
    """

    def __init__(
        self,
        tape: Tape,
        topics: Iterable[str],
        since: Mapping[str, Position],
        since_time: datetime | None,
    ) -> None:
        super().__init__(sys.maxsize, Counters(), on_space=lambda reader: None)
        self._tape = tape
        self._patterns: list[str] = []
        self._since_ms = 0 if since_time is None else since_time.timestamp() * 1000
        self._is_handling = False
        for topic in topics:
            if is_pattern(topic):
                self._patterns.append(topic)
            else:
                self._add(topic, since.get(topic))
        tape.add(self)

    @property
    def is_busy(self) -> bool:
        """Whether it has unread items, or somebody handles its last one."""
        return not self.is_ended and (self._is_handling or len(self._buffer) > 0)

    def deliver(self, item: AnyMessage | Gap) -> None:
        """Take an item if it is of one of its topics."""
        topic = item.topic
        if topic not in self._trackers:
            if not any(fnmatchcase(topic, each) for each in self._patterns):
                return
            self._add(topic, None)
        tracker = self._trackers[topic]
        if isinstance(item, Gap):
            self._put_gap(item)
            if item.missed_to is None:
                tracker.reset()
            else:
                tracker.advance(item.epoch, item.missed_to)
        elif item.ts >= self._since_ms:
            if not tracker.epoch:
                tracker.advance(item.epoch, item.seq - 1)
            if tracker.check(item) is CheckResult.GAP:
                self._put_gap(_hole(tracker, item))
                tracker.advance(item.epoch, item.seq - 1)
            self.receive(topic, item)

    def take(self) -> MarketMessage | Gap | None:
        """The next item, or None, and then the reader is not busy any more."""
        item = super().take()
        self._is_handling = item is not None
        if item is None:
            self._tape.notify()
        return item

    async def wait_changed(self) -> None:
        """Move the tape on until there is an item; raises `ReplayStuck`."""
        await self._tape.advance(self, lambda: len(self._buffer) > 0 or self.is_ended)

    def _add(self, topic: str, position: Position | None) -> None:
        stream = Stream(topic.partition(":")[0])
        self.add_topic(topic, continuity_of(stream, is_view="@" in topic), position)
        # There is no server to wait for.
        self.reply_received(topic)


class ReplayBookReader(BookReader):
    """Applies the messages of a book as the tape moves on; nobody waits for it."""

    is_busy = False

    def __init__(self, tape: Tape, symbol: str, topic: str, source: BookSource) -> None:
        super().__init__(symbol, source, Counters())
        self._tape = tape
        self.add_topic(topic, continuity_of(Stream.ORDERBOOK), None)
        self.reply_received(topic)
        tape.add(self)

    def deliver(self, item: AnyMessage | Gap) -> None:
        """Apply a message of this book; an update without what was before is of no use."""
        [topic] = self.topics
        if item.topic == topic and not isinstance(item, Gap):
            self.receive(topic, item)

    async def wait_changed(self) -> None:
        """Move the tape on until the book changes; raises `ReplayStuck`."""
        version = self.version
        await self._tape.advance(self, lambda: self.version != version or self.is_ended)


def _hole(tracker: GapTracker, message: AnyMessage) -> Gap:
    """The gap before a message that does not follow the last one."""
    if tracker.epoch != message.epoch:
        return Gap(message.topic, tracker.epoch, tracker.seq + 1, None, GapReason.EPOCH)
    last = message.seq - 1
    return Gap(message.topic, tracker.epoch, tracker.seq + 1, last, GapReason.HISTORY)
