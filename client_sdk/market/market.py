"""The market as users see it: prices, trades, any topic, callbacks, publishing."""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import ValidationError

from client_sdk.config import ClientConfig
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.namespaces import Namespace
from client_sdk.connection.packets import Packet
from client_sdk.connection.wire import Connection
from client_sdk.contract import FeedState, Position, Status, Stream
from client_sdk.errors import ClientClosed, FloorcastError
from client_sdk.market.live_book import BookReader, LiveBook
from client_sdk.market.publisher import Publisher
from client_sdk.market.subscriptions import Subscriptions
from client_sdk.models import (
    MESSAGE_MODELS,
    AnyMessage,
    Gap,
    MarketMessage,
    PriceMessage,
    TradesMessage,
    topic_name,
)
from client_sdk.reading.callbacks import Callback, Callbacks, OnItem
from client_sdk.reading.readers import Reader
from client_sdk.stats import Counters
from client_sdk.streams import MessageStream

logger = logging.getLogger(__name__)

OnStatus = Callable[[Status], None]


class Market:
    """`client.market`."""

    def __init__(
        self, namespace: Namespace, config: ClientConfig, counters: Counters, clock: ServerClock
    ) -> None:
        self._namespace = namespace
        self._config = config
        self._counters = counters
        self._clock = clock
        self._subscriptions = Subscriptions(namespace, counters, clock)
        self._publisher = Publisher(namespace, config)
        self._callbacks = Callbacks()
        self._status_callbacks: list[OnStatus] = []
        namespace.on_event = self._on_event
        namespace.on_join = self._on_join
        namespace.on_lost = self._subscriptions.on_disconnect
        namespace.on_failure = self._on_failure

    # --- reading

    def prices(self, *symbols: str, interval_ms: int = 0) -> MessageStream[PriceMessage]:
        """The latest price of each symbol, whenever it changes; a slow reader skips old ones."""
        topics = [f"{Stream.PRICE}:{each}" for each in symbols]
        return MessageStream(self._new_reader(topics, interval_ms), self._subscriptions.remove)

    def trades(self, *symbols: str) -> MessageStream[TradesMessage | Gap]:
        """Every trade, in order; a `Gap` where some could not be had."""
        topics = [f"{Stream.TRADES}:{each}" for each in symbols]
        return MessageStream(self._new_reader(topics, 0), self._subscriptions.remove)

    def stream(self, *topics: str, interval_ms: int = 0) -> MessageStream[AnyMessage | Gap]:
        """Any topics, each by the rules of its stream."""
        return MessageStream(self._new_reader(topics, interval_ms), self._subscriptions.remove)

    def on(self, topic: str, callback: OnItem, *, interval_ms: int = 0) -> Callback:
        """Call a function, plain or async, for each item of a topic, one after the other."""
        return self._callbacks.start(self.stream(topic, interval_ms=interval_ms), callback)

    def book(self, symbol: str, *, interval_ms: int = 0) -> LiveBook:
        """An order book that keeps itself right."""
        topic = f"{Stream.ORDERBOOK}:{symbol}"
        listener = BookReader(symbol, topic, self._subscriptions, self._counters)
        self._raise_if_failed()
        self._subscriptions.add(listener, [topic], interval_ms)
        return LiveBook(listener, self._subscriptions, lambda: self._namespace.gate.is_open)

    def status(self, topic: str) -> FeedState | None:
        """Whether the feed of a topic that is read here speaks; None where nobody can tell."""
        return self._subscriptions.feed_state(topic)

    def on_status(self, callback: OnStatus) -> Callable[[], None]:
        """Call this when a feed falls silent or speaks again; what it returns ends that."""
        self._status_callbacks.append(callback)

        def end() -> None:
            if callback in self._status_callbacks:
                self._status_callbacks.remove(callback)

        return end

    def _new_reader(self, topics: Sequence[str], interval_ms: int) -> Reader[MarketMessage]:
        if not topics:
            raise ValueError("name at least one")
        self._raise_if_failed()
        listener: Reader[MarketMessage] = Reader(
            self._config.buffer_messages, self._counters, on_space=self._subscriptions.fetch_more
        )
        self._subscriptions.add(listener, topics, interval_ms)
        return listener

    def _raise_if_failed(self) -> None:
        """Raise where nothing will ever come."""
        if self._namespace.gate.error is not None:
            raise self._namespace.gate.error.clone()

    # --- publishing

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        user: str | None = None,
        type: Literal["update", "snapshot"] = "update",  # noqa: A002
    ) -> Position:
        """Publish one message; concurrent calls share a request. Its position once it is kept."""
        return await self._publisher.publish(topic, data, id=id, user=user, type=type)

    # --- what comes

    def _on_event(self, wire: Connection, packet: Packet) -> None:
        model = MESSAGE_MODELS.get(packet.event)
        if model is None:
            if packet.event == "status":
                self._on_status(packet.body)
            return
        try:
            message = model.model_validate_json(packet.body)
        except ValidationError:
            self._on_untyped(packet)
            return
        if message.type != "heartbeat":
            message.use_clock(self._clock)
            self._counters.received += 1
            self._counters.latencies.add(message.age * 1000)
        self._subscriptions.receive(message)

    def _on_untyped(self, packet: Packet) -> None:
        """A heartbeat has no data in it; anything else is a message that nobody can read."""
        try:
            message = MarketMessage.model_validate_json(packet.body)
        except ValidationError:
            message = None
        if message is not None and message.type == "heartbeat":
            self._subscriptions.receive(message)
            return
        # Where it counts, the next one shows that something is missing, and it is asked for.
        self._counters.malformed += 1
        logger.warning("a message could not be read", extra={"event": packet.event})

    def _on_status(self, body: str) -> None:
        try:
            status = Status.model_validate_json(body)
        except ValidationError:
            logger.warning("a status could not be read")
            return
        self._subscriptions.set_feed_state(topic_name(status.stream, status.symbol), status.state)
        for callback in tuple(self._status_callbacks):
            try:
                callback(status)
            except Exception:
                # An edge: what a user's callback does must not end the connection.
                logger.exception("a callback for the status failed")

    def _on_join(self) -> None:
        self._subscriptions.on_join()
        self._publisher.on_join()

    def _on_failure(self, error: FloorcastError) -> None:
        closed = isinstance(error, ClientClosed)
        self._subscriptions.fail(None if closed else error)
        self._publisher.fail(error)

    async def close(self) -> None:
        """End what runs for it."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._publisher.close)
            stack.push_async_callback(self._subscriptions.close)
            stack.push_async_callback(self._callbacks.close)
