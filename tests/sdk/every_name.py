"""A program that uses every public name of the SDK; mypy checks it, and a test runs it."""

import asyncio
from decimal import Decimal
from typing import assert_never

import client_sdk as sdk


class EventLog:
    """Collects a line for each thing that happens, matching on every type."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, *parts: object) -> None:
        self.lines.append(" ".join(map(str, parts)))

    def state(self, state: sdk.ClientState, reason: sdk.FloorcastError | None) -> None:
        self.note("state", state.value, reason)

    def status(self, status: sdk.Status) -> None:
        if status.state is sdk.FeedState.STALE:
            self.note("silent", status.stream, status.since_ms)

    async def notice(self, notice: sdk.Notification) -> None:
        self.note("notice", notice.event)

    def message(self, message: sdk.AnyMessage | sdk.Gap) -> None:
        match message:
            case sdk.PriceMessage():
                self.note("price", message.data.last, Decimal(message.data.bid), message.age)
            case sdk.BookMessage():
                self.note("book", message.data.bids, message.data.checksum)
            case sdk.TradesMessage():
                self.note("trades", [trade.price for trade in message.data.trades])
            case sdk.UserDataMessage() | sdk.BotStatusMessage() | sdk.RiskAlertMessage():
                self.note("private", message.data)
            case sdk.OrderUpdateMessage():
                self.note("order", message.data.order_id)
            case sdk.Gap(reason=sdk.GapReason.HISTORY | sdk.GapReason.EPOCH as reason):
                self.note("gap", message.missed_from, message.missed_to, reason)
            case sdk.Gap():
                assert_never(message.reason)

    def event(self, event: sdk.SessionEvent | sdk.PresenceChanged) -> None:
        match event:
            case sdk.UserJoined() | sdk.UserLeft():
                self.note("change", event.user_id, event.participant_count)
            case sdk.PresenceChanged():
                self.note("presence", event.participant_count, len(event.participants))
            case sdk.SessionSignal():
                self.note("signal", event.data)

    def failure(self, error: sdk.FloorcastError) -> None:
        self.note(error.code, error.message, error.retry_after_ms, error.details)


REFUSALS: tuple[type[sdk.FloorcastError], ...] = (
    sdk.AuthenticationError,
    sdk.ForbiddenError,
    sdk.LimitExceeded,
    sdk.PublishConflict,
    sdk.RequestRefused,
    sdk.SessionError,
    sdk.TopicError,
)
OURS: tuple[type[sdk.FloorcastError], ...] = (
    sdk.BufferFull,
    sdk.ClientClosed,
    sdk.ConfigError,
    sdk.ConnectionLost,
    sdk.InvalidData,
    sdk.NotConnected,
    sdk.ProtocolError,
    sdk.SendTimeout,
    sdk.ServerUnavailable,
    sdk.TokenRevoked,
    sdk.TokenUnavailable,
)


async def market(market: sdk.Market, log: EventLog) -> None:
    """Read and publish market data."""
    price = {"bid": Decimal("1.00"), "ask": "1.02", "last": "1.01", "volume": "5"}
    position: sdk.Position = await market.publish(f"{sdk.Stream.PRICE}:A", price, id="one")
    log.note("at", position.epoch, position.seq)
    end = market.on_status(log.status)
    callback: sdk.Callback = market.on("PRICE:A", log.message, interval_ms=100)
    prices: sdk.MessageStream[sdk.PriceMessage] = market.prices("A")
    tick = await anext(prices)
    log.note(tick.symbol, tick.data.last, market.status(tick.topic))
    await prices.aclose()
    async with market.stream("ORDERBOOK:A", "USER_DATA") as stream:
        await market.publish(
            "ORDERBOOK:A", {"bids": [["1", "2"]], "asks": [["2", "1"]]}, type="snapshot"
        )
        await market.publish("USER_DATA", {"x": 1}, user="ann")
        for _ in range(2):
            item = await anext(stream)
            if not isinstance(item, sdk.Gap):
                known: sdk.MarketMessage = item
                log.note(known.topic, stream.position(known.topic))
            log.message(item)
    live: sdk.LiveBook
    async with market.book("A") as live:
        now: sdk.BookState = await anext(live)
        if now.status is live.status is sdk.BookStatus.LIVE:
            log.note(live.best_bid, live.best_ask, live.mid, live.bids, live.asks)
            log.note(now.spread, now.microprice, now.imbalance, now.ts, now.age)
    async with market.trades("A") as trades, market.stream("ORDERBOOK:A") as changes:
        await market.publish("TRADES:A", {"trades": []})
        log.message(await anext(trades))
        own = sdk.Book("A")
        change = await anext(changes)
        assert isinstance(change, sdk.BookMessage)
        log.note(own.apply(change), own.checksum())
    callback.close()
    end()


async def sessions(sessions: sdk.Sessions, log: EventLog) -> None:
    """Join, send and read."""
    end = sessions.on_notification(log.notice)
    session: sdk.Session
    async with sessions.join("job:42", metadata={"kind": "test"}) as session:
        on_event = session.on_event(log.event)
        sent: sdk.Sent = await session.send({"text": "hello"}, id="mine")
        received: sdk.SessionMessage | sdk.Gap = await anext(session.messages())
        log.note(sent.id, sent.position.seq, received)
        await session.signal({"typing": True})
        attendance: sdk.Attendance = await session.participants()
        people: tuple[sdk.Participant, ...] = attendance.participants
        log.note(attendance.participant_count, people[0].user_id)
        log.note(len(await session.history(limit=10)), session.id, session.metadata)
        on_event.close()
        try:
            await session.kick("bob")
        except REFUSALS as error:
            log.failure(error)
    end()


async def tour(url: str, token: str) -> list[str]:
    """Use everything once."""
    log = EventLog()
    config = sdk.ClientConfig(backoff=sdk.BackoffConfig(first_seconds=1.0), answer_seconds=5.0)
    client = sdk.Client(url, token=lambda: token, config=config)
    end = client.on_state(log.state)
    try:
        async with client:
            await market(client.market, log)
            await sessions(client.session, log)
            stats: sdk.Stats = client.stats
            latency: sdk.Latency = stats.latency
            log.note(stats.received, stats.gaps, latency.p99_ms)
    except OURS as error:
        log.failure(error)
    end()
    await client.wait_closed()
    log.note("ended", client.state, client.error)
    return log.lines


def script(url: str, token: str) -> list[str]:
    """Use the blocking client."""
    with sdk.SyncClient(url, token) as client:
        for tick in client.market.prices("A"):
            return [tick.data.last]
    return []


if __name__ == "__main__":
    import sys

    print(*asyncio.run(tour(sys.argv[1], sys.argv[2])), sep="\n")
