"""A minimal model of a server's topic, and readers that record what they get from it."""

from dataclasses import dataclass, field

from client_sdk.contract import MarketMessage, Position, Stream, TradesMessage
from client_sdk.reading.gaps import Continuity, Gap
from client_sdk.reading.readers import Reader, TopicState
from client_sdk.reading.topic_subscription import TopicSubscription
from client_sdk.stats import Counters

TOPIC = "TRADES:A"


def trade(epoch: str, seq: int, kind: str = "update", prev: int | None = None) -> TradesMessage:
    """A message without trades."""
    return TradesMessage.model_validate(
        {
            "stream": Stream.TRADES,
            "symbol": "A",
            "type": kind,
            "epoch": epoch,
            "seq": seq,
            "prev": seq - 1 if prev is None else prev,
            "ts": 0,
            "data": {"trades": []},
        }
    )


class ServerTopic:
    """A server's state of a topic: its position and the last few messages."""

    def __init__(self, history: int) -> None:
        self.epoch = "e0"
        self.seq = 0
        self._history = history
        self._restarts = 0
        # The position before the first message of this epoch.
        self._epoch_start = 0

    def publish(self) -> TradesMessage:
        """Publish one message."""
        self.seq += 1
        return trade(self.epoch, self.seq)

    def restart(self) -> None:
        """Lose everything and start a new epoch."""
        self._restarts += 1
        self.epoch, self.seq, self._epoch_start = f"e{self._restarts}", 0, 0

    def roll_back(self, seq: int) -> None:
        """Lose the messages after `seq`; a new epoch continues from there."""
        self._restarts += 1
        self.epoch, self.seq, self._epoch_start = f"e{self._restarts}", seq, seq

    def heartbeat(self) -> TradesMessage:
        """A heartbeat with the current position."""
        return trade(self.epoch, self.seq, "heartbeat", self.seq)

    def state_since(self, since: Position | None) -> TopicState[MarketMessage]:
        """The reply to `subscribe`."""
        first = max(1, self.seq - self._history + 1)
        known = -1
        if since is not None and since.epoch == self.epoch:
            known = max(since.seq, self._epoch_start)
        if first - 1 <= known <= self.seq:
            missed = [trade(self.epoch, seq) for seq in range(known + 1, self.seq + 1)]
            return TopicState(self.epoch, self.seq, True, None, missed)
        snapshot = trade(self.epoch, self.seq, "snapshot") if self.seq else None
        return TopicState(self.epoch, self.seq, False, snapshot, ())


@dataclass
class ReaderLog:
    """The positions and gaps that one reader got."""

    reader: Reader[MarketMessage]
    positions: list[tuple[str, int]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def read(self, most: int) -> None:
        """Take up to this many items."""
        for _ in range(most):
            item = self.reader.take()
            if item is None:
                return
            if isinstance(item, Gap):
                self.gaps.append(item)
            else:
                self.positions.append((item.epoch, item.seq))

    def reports_missing(self, epoch: str, seq: int) -> bool:
        """True if a gap covers this position."""
        return any(
            gap.epoch == epoch
            and gap.missed_from <= seq
            and (gap.missed_to is None or seq <= gap.missed_to)
            for gap in self.gaps
        )


class ReaderRig:
    """A subscription with readers, and a connection to a topic that a test can cut."""

    def __init__(self, *, history: int = 5, capacity: int = 4) -> None:
        self.topic = ServerTopic(history)
        self.counters = Counters()
        self.subscription: TopicSubscription[MarketMessage] = TopicSubscription(
            TOPIC, Continuity.COMPLETE, self.counters
        )
        self.readers: list[ReaderLog] = []
        self.subscribed = False
        self.connected = True
        self._capacity = capacity
        self._is_requesting = False

    def add_reader(self, position: Position | None = None) -> ReaderLog:
        """Add a reader."""
        reader: Reader[MarketMessage] = Reader(
            self._capacity, self.counters, on_space=self._on_space
        )
        self.subscription.add(reader, position)
        self.readers.append(ReaderLog(reader))
        return self.readers[-1]

    def _on_space(self, reader: Reader[MarketMessage]) -> None:
        if not self.subscription.is_syncing:
            self.subscription.needs_sync = True

    def publish(self, *, lost: bool = False) -> None:
        """Publish a message; a lost one does not reach the client."""
        message = self.topic.publish()
        if self.subscribed and self.connected and not lost:
            self.subscription.receive(message)

    def needs_sync(self) -> bool:
        """True if the client must send a request."""
        return self.subscription.needs_sync

    def disconnect(self) -> None:
        """Cut the connection."""
        self.connected = self.subscribed = self._is_requesting = False
        self.subscription.on_disconnect()

    def send_request(self) -> None:
        """Connect, and send a request if one is needed."""
        self.connected = True
        if self.subscription.needs_sync and not self._is_requesting:
            self._is_requesting = True
            self._since = self.subscription.begin_sync()

    def receive_reply(self, *, shared: bool = False) -> None:
        """Receive the reply if a request is pending."""
        if self._is_requesting:
            self._is_requesting, self.subscribed = False, True
            self.subscription.apply_state(self.topic.state_since(self._since), shared=shared)

    def settle(self) -> None:
        """Send requests and read everything until no request is needed."""
        for _ in range(100):
            self.send_request()
            self.receive_reply()
            for each in self.readers:
                each.read(100)
            if not self.subscription.needs_sync:
                return
        raise AssertionError("the subscription never settles")
