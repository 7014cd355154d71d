"""A kept topic of a server, as simple as can be, and a reader who keeps account of what it got."""

from dataclasses import dataclass, field

from client_sdk.contract import Position, Stream
from client_sdk.models import Gap, MarketMessage, TradesMessage
from client_sdk.reading.gaps import Continuity
from client_sdk.reading.readers import Reader, TopicState
from client_sdk.reading.topic_subscription import TopicSubscription
from client_sdk.stats import Counters

TOPIC = "TRADES:A"


def trade(epoch: str, seq: int, kind: str = "update", prev: int | None = None) -> TradesMessage:
    """A message without any trade in it."""
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
    """What a server has of a topic: its head, and the last few messages."""

    def __init__(self, history: int) -> None:
        self.epoch = "e0"
        self.seq = 0
        self._history = history
        self._restarts = 0
        # After which message this epoch began.
        self._epoch_start = 0

    def publish(self) -> TradesMessage:
        """One more message."""
        self.seq += 1
        return trade(self.epoch, self.seq)

    def restart(self) -> None:
        """Everything is forgotten."""
        self._restarts += 1
        self.epoch, self.seq, self._epoch_start = f"e{self._restarts}", 0, 0

    def roll_back(self, seq: int) -> None:
        """What came after this message is forgotten; others come in its place, in a new epoch."""
        self._restarts += 1
        self.epoch, self.seq, self._epoch_start = f"e{self._restarts}", seq, seq

    def heartbeat(self) -> TradesMessage:
        """The head, said again."""
        return trade(self.epoch, self.seq, "heartbeat", self.seq)

    def state_since(self, since: Position | None) -> TopicState[MarketMessage]:
        """What `subscribe` says."""
        first = max(1, self.seq - self._history + 1)
        known = (
            -1 if since is None or since.epoch != self.epoch else max(since.seq, self._epoch_start)
        )
        if first - 1 <= known <= self.seq:
            missed = [trade(self.epoch, seq) for seq in range(known + 1, self.seq + 1)]
            return TopicState(self.epoch, self.seq, True, None, missed)
        snapshot = trade(self.epoch, self.seq, "snapshot") if self.seq else None
        return TopicState(self.epoch, self.seq, False, snapshot, ())


@dataclass
class ReaderLog:
    """What one reader was told, and whether it adds up."""

    reader: Reader[MarketMessage]
    positions: list[tuple[str, int]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def read(self, most: int) -> None:
        """Take so many items."""
        for _ in range(most):
            item = self.reader.take()
            if item is None:
                return
            if isinstance(item, Gap):
                self.gaps.append(item)
            else:
                self.positions.append((item.epoch, item.seq))

    def reports_missing(self, epoch: str, seq: int) -> bool:
        """Whether it was told that it would not get this one."""
        return any(
            gap.epoch == epoch
            and gap.missed_from <= seq
            and (gap.missed_to is None or seq <= gap.missed_to)
            for gap in self.gaps
        )


class ReaderRig:
    """A subject with readers, connected to a topic by a wire that a test may cut."""

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
        """Somebody who reads from now on."""
        listener: Reader[MarketMessage] = Reader(
            self._capacity, self.counters, on_space=self._on_space
        )
        self.subscription.add(listener, position)
        self.readers.append(ReaderLog(listener))
        return self.readers[-1]

    def _on_space(self, listener: Reader[MarketMessage]) -> None:
        if not self.subscription.is_syncing:
            self.subscription.needs_sync = True

    def publish(self, *, lost: bool = False) -> None:
        """A message; one that is lost does not reach us, for whatever reason."""
        message = self.topic.publish()
        if self.subscribed and self.connected and not lost:
            self.subscription.receive(message)

    def needs_sync(self) -> bool:
        """Whether the server is to be asked for something."""
        return self.subscription.needs_sync

    def disconnect(self) -> None:
        """The connection is gone."""
        self.connected = self.subscribed = self._is_requesting = False
        self.subscription.on_disconnect()

    def send_request(self) -> None:
        """Send a question, where there is one."""
        self.connected = True
        if self.subscription.needs_sync and not self._is_requesting:
            self._is_requesting = True
            self._since = self.subscription.begin_sync()

    def receive_reply(self, *, shared: bool = False) -> None:
        """The answer comes, where there was a question."""
        if self._is_requesting:
            self._is_requesting, self.subscribed = False, True
            self.subscription.apply_state(self.topic.state_since(self._since), shared=shared)

    def settle(self) -> None:
        """Ask until nobody lacks anything, with readers who read it all."""
        for _ in range(100):
            self.send_request()
            self.receive_reply()
            for each in self.readers:
                each.read(100)
            if not self.subscription.needs_sync:
                return
        raise AssertionError("it asks for ever")
