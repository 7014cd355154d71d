"""Keeps ccxt watching symbols at the venue: its subscriptions live as long as it is called."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ccxt

from client_sdk.contract import Stream
from server.feeds.errors import FeedError
from server.feeds.sources.ccxt.markets import VenueMarket, by_kind
from server.feeds.sources.ccxt.options import CcxtOptions
from server.feeds.sources.ccxt.updates import Updates
from server.ports import Clock
from server.tasks import cancel_and_wait

logger = logging.getLogger(__name__)

# ccxt waits for each symbol of a call by itself, so a large group makes each message dearer.
_GROUP = 50
# What is watched may be called this seldom: updates are reported as they arrive.
_PACE_SECONDS = 0.05
# Between two losses of a group's books; the pauses grow while they follow each other closely.
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.05, 5.0
_STABLE_SECONDS = 30.0
_LEAVE_SECONDS = 5.0

# By the stream: what ccxt can do for many symbols at once, and for one.
_METHODS = {
    Stream.PRICE: (("watchTickers", "watch_tickers"), ("watchTicker", "watch_ticker")),
    Stream.TRADES: (
        ("watchTradesForSymbols", "watch_trades_for_symbols"),
        ("watchTrades", "watch_trades"),
    ),
    Stream.ORDERBOOK: (
        ("watchOrderBookForSymbols", "watch_order_book_for_symbols"),
        ("watchOrderBook", "watch_order_book"),
    ),
}
_LEAVE = {
    Stream.PRICE: ("unWatchTickers", "un_watch_tickers"),
    Stream.TRADES: ("unWatchTradesForSymbols", "un_watch_trades_for_symbols"),
    Stream.ORDERBOOK: ("unWatchOrderBookForSymbols", "un_watch_order_book_for_symbols"),
}
# What a venue must be asked for so that its tickers have a bid and an ask.
_PARAMS: dict[tuple[str, Stream], dict[str, object]] = {
    ("binance", Stream.PRICE): {"name": "ticker"},
}

# Gets the markets whose books begin anew, and why.
OnLost = Callable[[Sequence[VenueMarket], str], None]


class Watchers:
    """Watches the wanted symbols of each stream in groups; a failure fails the updates."""

    def __init__(
        self,
        name: str,
        venue: str,
        exchange: Any,
        options: CcxtOptions,
        updates: Updates,
        clock: Clock,
        on_lost: OnLost,
    ) -> None:
        self._name = name
        self._venue = venue
        self._exchange = exchange
        self._options = options
        self._updates = updates
        self._clock = clock
        self._on_lost = on_lost
        self._wanted: dict[Stream, frozenset[str]] = {}
        self._groups: dict[asyncio.Task[None], tuple[Stream, Sequence[VenueMarket]]] = {}
        self._changed_at = 0.0
        for stream in options.streams:
            if not any(map(self._can, _METHODS[stream])):
                raise FeedError(f"ccxt cannot watch {stream} at {venue}")

    def is_wanted(self, stream: Stream, venue_symbol: str) -> bool:
        """Whether a symbol is to be published; the venue may still send others."""
        return venue_symbol in self._wanted.get(stream, ())

    @property
    def watching_seconds(self) -> float:
        """How long the same symbols have been watched; 0 if there are none."""
        return self._clock.monotonic() - self._changed_at if any(self._wanted.values()) else 0.0

    async def want(self, stream: Stream, markets: Sequence[VenueMarket]) -> None:
        """Watch these markets, and leave others if ccxt can."""
        wanted = frozenset(each.venue_symbol for each in markets)
        if wanted == self._wanted.get(stream, frozenset()):
            return
        self._wanted[stream] = wanted
        self._changed_at = self._clock.monotonic()
        groups = [(task, group) for task, (of, group) in self._groups.items() if of is stream]
        watched = {each.venue_symbol for _, group in groups for each in group}
        new = [each for each in markets if each.venue_symbol not in watched]
        for group in by_kind(new, _GROUP if self._can(_METHODS[stream][0]) else 1):
            self._start(stream, group)
        for task, left in groups:
            if wanted.isdisjoint(each.venue_symbol for each in left):
                await self._leave(stream, task, left)
        if stream is Stream.ORDERBOOK:
            # A book that was watched all along has no reason to change now.
            for symbol in wanted & watched & self._exchange.orderbooks.keys():
                self._updates.add_book(symbol)

    async def stop(self) -> None:
        """Stop watching."""
        # A call that has failed already must not be cancelled: its error would be logged as lost.
        await asyncio.sleep(0)
        await cancel_and_wait(*self._groups)
        self._groups.clear()

    def _can(self, method: tuple[str, str]) -> bool:
        return bool(self._exchange.has.get(method[0]))

    def _start(self, stream: Stream, group: Sequence[VenueMarket]) -> None:
        watch = self._watch_books if stream is Stream.ORDERBOOK else partial(self._watch, stream)
        task = asyncio.create_task(watch(group), name=f"floorcast-ccxt-{stream.lower()}")
        self._groups[task] = (stream, group)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(failure := task.exception(), Exception):
            self._updates.fail(failure)

    async def _leave(
        self, stream: Stream, task: "asyncio.Task[None]", group: Sequence[VenueMarket]
    ) -> None:
        method = _LEAVE[stream]
        if not self._can(method) or not self._can(_METHODS[stream][0]):
            # The venue goes on to send it.
            return
        del self._groups[task]
        await cancel_and_wait(task)
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await getattr(self._exchange, method[1])([each.venue_symbol for each in group])
        except (ccxt.BaseError, TimeoutError) as error:
            logger.info("a subscription could not be ended: %s", error, extra={"feed": self._name})

    async def _watch(self, stream: Stream, group: Sequence[VenueMarket]) -> None:
        call = self._call(stream, group)
        while True:
            # The silence of one symbol has no limit, but that of all has: `silent_seconds`.
            await call()
            await asyncio.sleep(_PACE_SECONDS)

    async def _watch_books(self, group: Sequence[VenueMarket]) -> None:
        """Watch books, and begin those anew that ccxt finds wrong.

        It drops a book whose checksum or sequence is wrong; the next call subscribes again.
        """
        call = self._call(Stream.ORDERBOOK, group)
        symbols = [each.venue_symbol for each in group]
        failure, pause, lost_at = "", _FIRST_PAUSE_SECONDS, -_STABLE_SECONDS
        while True:
            # The call may have returned another symbol, or its error names none.
            lost = self._updates.pop_lost_books(symbols)
            if failure and not lost:
                lost = dict.fromkeys(symbols, failure)
            failure = ""
            if lost:
                now = self._clock.monotonic()
                is_stable = now - lost_at >= _STABLE_SECONDS
                pause = _FIRST_PAUSE_SECONDS if is_stable else min(2 * pause, _MAX_PAUSE_SECONDS)
                lost_at = now
                await self._begin_anew([each for each in group if each.venue_symbol in lost], lost)
                await asyncio.sleep(pause)
            try:
                await call()
                await asyncio.sleep(_PACE_SECONDS)
            except ccxt.InvalidNonce as error:
                failure = str(error) or "a book is out of step"

    async def _begin_anew(self, lost: Sequence[VenueMarket], reasons: Mapping[str, str]) -> None:
        self._on_lost(lost, next(iter(reasons.values())))
        if hasattr(self._exchange, "leave_books"):
            await self._exchange.leave_books(list(reasons), self._options.venue_depth)

    def _call(
        self, stream: Stream, group: Sequence[VenueMarket]
    ) -> Callable[[], Awaitable[object]]:
        """What calls ccxt's method for these symbols."""
        many, one = _METHODS[stream]
        symbols: object = [each.venue_symbol for each in group]
        method = many[1]
        if not self._can(many):
            [market] = group
            method, symbols = one[1], market.venue_symbol
        arguments: dict[str, object] = {"params": self._params(stream)}
        if stream is Stream.ORDERBOOK:
            arguments["limit"] = self._options.venue_depth
        return lambda: getattr(self._exchange, method)(symbols, **arguments)

    def _params(self, stream: Stream) -> dict[str, object]:
        # ccxt changes some of what it is given.
        return {**_PARAMS.get((self._venue, stream), {}), **self._options.params.get(stream, {})}
