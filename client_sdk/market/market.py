"""`client.market`: prices, trades, books, any topic, callbacks, publishing."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Literal, TypeVar

from pydantic import ValidationError

from client_sdk.config import ClientConfig
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.failures import FailureLog
from client_sdk.connection.namespaces import Namespace
from client_sdk.connection.packets import Packet, encode, parse_reply
from client_sdk.connection.websocket import Connection
from client_sdk.contract import (
    AnyMessage,
    Bar,
    FeedState,
    Instrument,
    MarketMessage,
    Position,
    PriceMessage,
    Status,
    Stream,
    TradesMessage,
)
from client_sdk.contract.messages import MESSAGE_MODELS
from client_sdk.contract.names import topic_name
from client_sdk.contract.replies import CandlesReply, InstrumentsReply, Reply
from client_sdk.errors import (
    ClientClosed,
    FloorcastError,
    NotConnected,
    SendTimeout,
    error_from_body,
    is_retryable,
)
from client_sdk.market.live_book import BookReader, LiveBook, book_topic
from client_sdk.market.publisher import Publisher
from client_sdk.market.subscriptions import Subscriptions
from client_sdk.market.will import WillSender
from client_sdk.reading.gaps import Gap
from client_sdk.reading.readers import Reader
from client_sdk.reading.streams import Callback, Callbacks, MessageStream, OnItem
from client_sdk.reading.topic_subscription import Start
from client_sdk.stats import Counters

logger = logging.getLogger(__name__)

ReplyT = TypeVar("ReplyT", bound=Reply)
# In one reply of the server.
_MAX_LAST = 1000
# What `model_validate_json` calls, without its options: a tenth of the cost of a small message.
_VALIDATE: Mapping[str, Callable[[str], MarketMessage]] = {
    event: model.__pydantic_validator__.validate_json for event, model in MESSAGE_MODELS.items()
}

OnStatus = Callable[[Status], None]
# A position, one for each topic, or a time.
Since = Position | Mapping[str, Position] | datetime | None


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
        self._will = WillSender(namespace, config)
        self._callbacks = Callbacks()
        self._status_callbacks: list[OnStatus] = []
        self._failures = FailureLog(logger, "a status callback")
        namespace.on_event = self._on_event
        namespace.on_join = self._on_join
        namespace.on_lost = self._subscriptions.on_disconnect
        namespace.on_failure = self._on_failure

    # --- reading

    def prices(self, *symbols: str, interval_ms: int = 0) -> MessageStream[PriceMessage]:
        """Stream the latest price of each symbol; a slow reader skips older prices."""
        topics = [f"{Stream.PRICE}:{each}" for each in symbols]
        return MessageStream(self._new_reader(topics, interval_ms), self._subscriptions.remove)

    def trades(
        self, *symbols: str, since: Since = None, last: int = 0
    ) -> MessageStream[TradesMessage | Gap]:
        """Stream every trade in order, with a `Gap` where some are lost.

        `since` is the position of the last message that was read before, one for each topic (as
        `checkpoint` returns them), or a time. `last` begins with so many kept messages instead.
        """
        topics = [f"{Stream.TRADES}:{each}" for each in symbols]
        return MessageStream(self._new_reader(topics, 0, since, last), self._subscriptions.remove)

    def stream(
        self, *topics: str, interval_ms: int = 0, since: Since = None, last: int = 0
    ) -> MessageStream[AnyMessage | Gap]:
        """Stream any topics, each by the rules of its stream; `since` and `last` as in `trades`.

        A pattern such as `PRICE:*` or `TRADES:BTC*` stands for all symbols that match, also for
        those that appear later.
        """
        reader = self._new_reader(topics, interval_ms, since, last)
        return MessageStream(reader, self._subscriptions.remove)

    def on(
        self, topic: str, callback: OnItem, *, interval_ms: int = 0, since: Position | None = None
    ) -> Callback:
        """Call a function, plain or async, for each item of a topic, one at a time."""
        stream = self.stream(topic, interval_ms=interval_ms, since=since)
        return self._callbacks.start(stream, callback)

    def book(
        self,
        symbol: str,
        *,
        depth: int | None = None,
        step: str | Decimal | None = None,
        interval_ms: int = 0,
    ) -> LiveBook:
        """Keep a live order book: all of it, or so many levels of each side.

        With a `step` (which needs a `depth`), the server sums the quantities of prices by it.
        """
        topic = book_topic(symbol, depth, step)
        reader = BookReader(symbol, self._subscriptions, self._counters)
        self._namespace.require_usable()
        self._subscriptions.add(reader, [topic], interval_ms)
        return LiveBook(
            reader, self._subscriptions, self._clock, lambda: self._namespace.gate.is_open
        )

    def status(self, topic: str) -> FeedState | None:
        """The freshness of a topic's feed; None if it is unknown, or nobody reads the topic."""
        return self._subscriptions.feed_state(topic)

    def on_status(self, callback: OnStatus) -> Callable[[], None]:
        """Call a plain function on each change of a feed's freshness.

        Call the returned function to stop.
        """
        self._status_callbacks.append(callback)

        def remove() -> None:
            if callback in self._status_callbacks:
                self._status_callbacks.remove(callback)

        return remove

    def _new_reader(
        self, topics: Sequence[str], interval_ms: int, since: Since = None, last: int = 0
    ) -> Reader[MarketMessage]:
        if not topics:
            raise ValueError("name at least one topic or symbol")
        if not 0 <= last <= _MAX_LAST:
            raise ValueError(f"`last` must be from 0 to {_MAX_LAST}")
        start = Start(last=last) if last else None
        if isinstance(since, datetime):
            start, since = Start(ts_ms=max(0, int(since.timestamp() * 1000)), last=last), None
        if isinstance(since, Position):
            if len(topics) > 1:
                raise ValueError("`since` must be a mapping of topics to positions here")
            since = {topics[0]: since}
        unknown = since.keys() - set(topics) if since else None
        if unknown:
            raise ValueError(f"`since` names topics that are not read: {sorted(unknown)}")
        self._namespace.require_usable()
        reader: Reader[MarketMessage] = Reader(
            self._config.buffer_messages, self._counters, on_space=self._subscriptions.fetch_more
        )
        self._subscriptions.add(reader, topics, interval_ms, since, start)
        return reader

    # --- instruments

    async def instruments(self, *symbols: str, match: str = "*") -> tuple[Instrument, ...]:
        """All symbols that the server knows, or these, or those that match such as `BTC*`."""
        found: list[Instrument] = []
        has_more = True
        while has_more:
            request: dict[str, object] = {"match": match}
            if symbols:
                request["symbols"] = symbols
            if found:
                request["after"] = found[-1].symbol
            reply = await self._request("instruments", request, InstrumentsReply)
            found += reply.instruments
            has_more = reply.has_more
        return tuple(found)

    async def candles(
        self, symbol: str, interval: str = "1m", *, limit: int = 500, before: int | None = None
    ) -> tuple[Bar, ...]:
        """The newest bars of a symbol, oldest first, or those that begin before a time in ms.

        `stream(f"TRADES:{symbol}@{interval}")` goes on from there, and
        `floorcast.data.bars_to_dataframe` makes a table of them.
        """
        request: dict[str, object] = {"symbol": symbol, "interval": interval, "limit": limit}
        if before is not None:
            request["before"] = before
        return (await self._request("candles", request, CandlesReply)).bars

    async def _request(
        self, event: str, request: Mapping[str, object], model: type[ReplyT]
    ) -> ReplyT:
        """Send a request on this connection or the next one; raises `SendTimeout`."""
        self._namespace.require_usable()
        self._namespace.request_join()
        seconds = self._config.send_seconds
        parse = partial(parse_reply, model)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self._namespace.gate.wait_open()
                    try:
                        return await self._namespace.request(event, encode(request), parse)
                    except FloorcastError as error:
                        if not is_retryable(error):
                            raise
                        if not isinstance(error, NotConnected | SendTimeout):
                            await asyncio.sleep((error.retry_after_ms or 1000) / 1000)
        except TimeoutError:
            raise SendTimeout(f"no reply within {seconds:g} s") from None

    # --- publishing

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        user: str | None = None,
        type: Literal["update", "snapshot"] = "update",  # noqa: A002
        source_ts: int | None = None,
        timeout: float | None = None,
    ) -> Position:
        """Publish one message and return its position; concurrent calls share a request.

        `source_ts` is the venue's time of the message in ms.

        Raises `SendTimeout` without a reply within `timeout`, by default `send_seconds`: the
        message may have been published, and publishing it again under the same `id` is safe.
        """
        return await self._publisher.publish(
            topic, data, id=id, user=user, type=type, source_ts=source_ts, timeout=timeout
        )

    async def will(
        self,
        messages: Sequence[Mapping[str, object]] | None,
        *,
        after_ms: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Let the server publish messages once the last connection of this user is gone.

        Each message is `{"topic", "data", "id"?, "user"?, "type"?}`. They are published after the
        user has been without a connection for `after_ms`, also if this client is closed; None takes
        them back. The client sets its will again on each new connection. Raises `SendTimeout`
        without a reply within `timeout`, by default `send_seconds`.
        """
        await self._will.set(messages, after_ms, timeout)

    # --- callbacks of the namespace

    def _on_event(self, connection: Connection, packet: Packet) -> None:
        validate = _VALIDATE.get(packet.event)
        if validate is None:
            if packet.event == "status":
                self._on_status(packet.body)
            return
        try:
            message = validate(packet.body)
        except ValidationError:
            self._on_untyped(packet)
            return
        if message.type != "heartbeat":
            message.use_clock(self._clock)
            self._counters.received += 1
            self._counters.latencies.add(self._clock.age_seconds(message.ts) * 1000)
        self._subscriptions.receive(message)

    def _on_untyped(self, packet: Packet) -> None:
        """Handle a heartbeat, which has no data; count anything else as malformed."""
        try:
            message = MarketMessage.model_validate_json(packet.body)
        except ValidationError:
            message = None
        if message is not None and message.type == "heartbeat":
            self._subscriptions.receive(message)
            return
        # The next message reveals the gap, if it matters, and triggers a request.
        self._counters.malformed += 1
        logger.warning("malformed message ignored", extra={"event": packet.event})

    def _on_status(self, body: str) -> None:
        try:
            status = Status.model_validate_json(body)
        except ValidationError:
            logger.warning("malformed status event ignored")
            return
        topic = topic_name(status.stream, status.symbol, status.view)
        if status.error is not None:
            self._subscriptions.end(topic, error_from_body(status.error))
        else:
            self._subscriptions.set_feed_state(topic, status.state)
        for callback in tuple(self._status_callbacks):
            try:
                callback(status)
            except Exception as error:
                # An edge: a user's callback must not end the connection.
                self._failures.record(error)

    def _on_join(self) -> None:
        self._subscriptions.on_join()
        self._publisher.on_join()
        self._will.on_join()

    def _on_failure(self, error: FloorcastError) -> None:
        closed = isinstance(error, ClientClosed)
        self._subscriptions.fail(None if closed else error)
        self._publisher.fail(error)
        self._will.fail(error)

    async def close(self) -> None:
        """End its tasks."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._will.close)
            stack.push_async_callback(self._publisher.close)
            stack.push_async_callback(self._subscriptions.close)
            stack.push_async_callback(self._callbacks.close)
