"""A program that uses every public name of the SDK: for the type checker, and run by a test."""

import asyncio
from decimal import Decimal
from typing import assert_never

import client_sdk as sdk


class EventLog:
    """What happened, in the words of somebody who checks every kind of thing."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, *words: object) -> None:
        self.lines.append(" ".join(map(str, words)))

    def state(self, state: sdk.ClientState) -> None:
        self.note("state", state.value)

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

    def event(self, event: sdk.SessionEvent) -> None:
        match event:
            case sdk.UserJoined() | sdk.UserLeft():
                self.note("change", event.user_id, event.participant_count)
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
    sdk.ConnectionLost,
    sdk.InvalidData,
    sdk.NotConnected,
    sdk.ProtocolError,
    sdk.SendTimeout,
    sdk.ServerUnavailable,
    sdk.TokenUnavailable,
)


async def market(market: sdk.Market, diary: EventLog) -> None:
    """Read and publish."""
    price = {"bid": Decimal("1.00"), "ask": "1.02", "last": "1.01", "volume": "5"}
    position: sdk.Position = await market.publish(f"{sdk.Stream.PRICE}:A", price, id="one")
    diary.note("at", position.epoch, position.seq)
    end = market.on_status(diary.status)
    callback: sdk.Callback = market.on("PRICE:A", diary.message, interval_ms=100)
    prices: sdk.MessageStream[sdk.PriceMessage] = market.prices("A")
    tick = await anext(prices)
    diary.note(tick.symbol, tick.data.last, market.status(tick.topic))
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
                diary.note(known.topic, stream.position(known.topic))
            diary.message(item)
    live: sdk.LiveBook
    async with market.book("A") as live:
        if live.status is sdk.BookStatus.LIVE:
            diary.note(live.best_bid, live.best_ask, live.mid, live.bids, live.asks)
    async with market.trades("A") as trades, market.stream("ORDERBOOK:A") as changes:
        await market.publish("TRADES:A", {"trades": []})
        diary.message(await anext(trades))
        own = sdk.Book("A")
        change = await anext(changes)
        assert isinstance(change, sdk.BookMessage)
        diary.note(own.apply(change), own.checksum())
    callback.close()
    end()


async def sessions(sessions: sdk.Sessions, diary: EventLog) -> None:
    """Talk."""
    end = sessions.on_notification(diary.notice)
    session: sdk.Session
    async with sessions.join("job:42", metadata={"kind": "test"}) as session:
        on_event = session.on_event(diary.event)
        sent: sdk.Sent = await session.send({"text": "hello"}, id="mine")
        said: sdk.SessionMessage | sdk.Gap = await anext(session.messages())
        diary.note(sent.id, sent.position.seq, said)
        await session.signal({"typing": True})
        attendance: sdk.Attendance = await session.participants()
        people: tuple[sdk.Participant, ...] = attendance.participants
        diary.note(attendance.participant_count, people[0].user_id)
        diary.note(len(await session.history(limit=10)), session.id, session.metadata)
        on_event.close()
        try:
            await session.kick("bob")
        except REFUSALS as error:
            diary.failure(error)
    end()


async def tour(url: str, token: str) -> list[str]:
    """Everything once."""
    diary = EventLog()
    config = sdk.ClientConfig(backoff=sdk.BackoffConfig(first_seconds=1.0), answer_seconds=5.0)
    client = sdk.Client(url, token=lambda: token, config=config)
    end = client.on_state(diary.state)
    try:
        async with client:
            await market(client.market, diary)
            await sessions(client.session, diary)
            stats: sdk.Stats = client.stats
            latency: sdk.Latency = stats.latency
            diary.note(stats.received, stats.gaps, latency.p99_ms)
    except OURS as error:
        diary.failure(error)
    end()
    diary.note("ended", client.state)
    return diary.lines


def script(url: str, token: str) -> list[str]:
    """The same for those who do not await."""
    with sdk.SyncClient(url, token) as client:
        for tick in client.market.prices("A"):
            return [tick.data.last]
    return []


if __name__ == "__main__":
    import sys

    print(*asyncio.run(tour(sys.argv[1], sys.argv[2])), sep="\n")
