"""Publishes the trades that were missed before those of the new connection, which wait for them."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from client_sdk.contract import Stream
from server.feeds.sources.ccxt.missed import Missed, fetch_missed, has_order, trade_order
from server.feeds.sources.ccxt.options import CcxtOptions
from server.feeds.sources.ccxt.updates import Trade, Updates
from server.feeds.sources.ccxt.watchers import Watchers
from server.ports import Clock
from server.tasks import cancel_and_wait

logger = logging.getLogger(__name__)

# A symbol that was not traded so long after a connection is filled without its next trade.
QUIET_SECONDS = 2.0
# Of one symbol; further ones wait where they arrive.
_MAX_WAITING = 10_000
# What ccxt holds back for the venue's limit of requests, it sends even if nobody waits any more.
_REQUESTS = 4
# An outage of many symbols must not fill the log.
_LOG_SECONDS = 10.0

Publish = Callable[[Trade], Awaitable[None]]
# Gets a symbol; returns its newest trade that any node has published.
FindLast = Callable[[str], Awaitable[Trade | None]]


class TradeFill:
    """Publishes the trades of one run of the feed in their order.

    `last` has the newest published trade of each symbol, and outlives the run. A feed that has
    just started continues from what the broker has: another node may hold newer trades back until
    it has filled the same gap. The first trade of a symbol shows that the new connection has it,
    so what REST has then is complete.
    """

    def __init__(
        self,
        name: str,
        exchange: Any,
        options: CcxtOptions,
        updates: Updates,
        watchers: Watchers,
        publish: Publish,
        find_last: FindLast,
        last: dict[str, Trade],
        clock: Clock,
    ) -> None:
        self._name = name
        self._exchange = exchange
        self._options = options
        self._updates = updates
        self._watchers = watchers
        self._publish = publish
        self._find_last = find_last
        self._last = last
        self._clock = clock
        self._can_fill = bool(options.fill_trades and exchange.has.get("fetchTrades"))
        # Symbols without a trade of the new connection so far.
        self._due = set(last) if self._can_fill else set[str]()
        self._waiting: dict[str, deque[Trade]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_REQUESTS)
        self._logged_at: float | None = None
        self._incomplete = 0

    async def add(self, trade: Trade) -> None:
        """Publish a trade, or let it wait until its symbol is filled."""
        symbol = trade["symbol"]
        if not has_order(trade):
            await self._publish(trade)
            return
        if self._can_fill and symbol not in self._last:
            await self._continue(symbol)
        if symbol in self._due and symbol not in self._waiting:
            if self._is_missing_before(trade):
                self._start(symbol)
            else:
                self._due.discard(symbol)
        waiting = self._waiting.get(symbol)
        if waiting is None:
            await self._send(trade)
            return
        waiting.append(trade)
        if len(waiting) >= _MAX_WAITING:
            await asyncio.wait([self._tasks[symbol]])

    async def fill_quiet(self) -> None:
        """Fill the symbols that are not traded now; those traded later are filled once more."""
        while True:
            await asyncio.sleep(QUIET_SECONDS)
            if any(each.connected.done() for each in self._exchange.clients.values()):
                break
        for symbol in sorted(self._due):
            if symbol in self._due and symbol not in self._waiting and self._is_wanted(symbol):
                await asyncio.wait([self._start(symbol)])
        # The run of the feed ends with the first of its parts.
        await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """Stop filling, and forget the symbols that are not wanted any more."""
        await cancel_and_wait(*self._tasks.values())
        for symbol in [each for each in self._last if not self._is_wanted(each)]:
            del self._last[symbol]

    async def _continue(self, symbol: str) -> None:
        """Fill a symbol of which this feed has published nothing from where the topic ends."""
        last = await self._find_last(symbol)
        if last is not None:
            self._last[symbol] = last
            self._due.add(symbol)

    def _is_wanted(self, symbol: str) -> bool:
        return self._watchers.is_wanted(Stream.TRADES, symbol)

    def _is_missing_before(self, trade: Trade) -> bool:
        """Whether there can be trades between the last published one and this."""
        last = self._last[trade["symbol"]]
        return trade_order(trade) > trade_order(last)

    def _start(self, symbol: str) -> "asyncio.Task[None]":
        self._waiting[symbol] = deque()
        task = asyncio.create_task(self._fill(symbol), name="floorcast-ccxt-fill")
        self._tasks[symbol] = task
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(failure := task.exception(), Exception):
            self._updates.fail(failure)

    async def _fill(self, symbol: str) -> None:
        waiting = self._waiting[symbol]
        while True:
            first = waiting[0] if waiting else None
            await self._publish_missed(symbol, first)
            if first is not None or not waiting:
                break
        if first is not None:
            self._due.discard(symbol)
        while waiting:
            await self._send(waiting.popleft())
        del self._waiting[symbol], self._tasks[symbol]

    async def _publish_missed(self, symbol: str, first: Trade | None) -> None:
        now_ms = int(self._clock.time() * 1000)
        last = self._last[symbol]
        missed = await fetch_missed(self._exchange, self._options, self._turns, last, first, now_ms)
        if missed.reason:
            self._warn(symbol, missed)
        for trade in missed.trades:
            await self._send(trade)

    def _warn(self, symbol: str, missed: Missed) -> None:
        self._incomplete += 1
        now = self._clock.monotonic()
        if self._logged_at is None or now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            fields = {"feed": self._name, "symbol": symbol, "incomplete": self._incomplete}
            text = "trades of %g s may be missing: %s"
            logger.warning(text, missed.missing_ms / 1000, missed.reason, extra=fields)

    async def _send(self, trade: Trade) -> None:
        await self._publish(trade)
        last = self._last.get(trade["symbol"])
        if last is None or trade_order(trade) > trade_order(last):
            self._last[trade["symbol"]] = trade
