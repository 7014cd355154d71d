"""Publishes order books: each change is checked against the book as the broker has it."""

from dataclasses import dataclass
from typing import cast

import orjson

from client_sdk.contract import BookData, ErrorCode
from server.core.errors import RequestError, WriteConflict
from server.core.log.entries import Position, Receipt
from server.core.log.idempotency import Claim
from server.core.market.book import BookChange, Levels, OrderBook
from server.core.wire.strict_json import dumps
from server.ports import Broker
from server.services.fifo_locks import FifoLocks

# Every attempt that failed is one of another node's that went through.
_MAX_ATTEMPTS = 20
_MAX_WAITING = 1_000


@dataclass(slots=True)
class _CachedBook:
    """A book as it was at a position; without one it has to be read."""

    book: OrderBook
    position: Position | None = None
    # What had been published is gone: a change of it would be a change of nothing.
    lost: bool = False


class BookPublisher:
    """The books that this node publishes; others may publish the same."""

    def __init__(self, broker: Broker, *, max_levels: int) -> None:
        self._broker = broker
        self._max_levels = max_levels
        self._cache: dict[str, _CachedBook] = {}
        # So that what was done last is also what is taken back first.
        self._locks = FifoLocks(max_waiting=_MAX_WAITING)

    async def publish(
        self, channel: str, data: BookData, ts_ms: int, kind: str, claim: Claim | None
    ) -> Position:
        """Publish a change of a book, or all of it."""
        await self._locks.acquire(channel)
        try:
            # Asked first: the book as it is now may not take a change for the second time.
            if claim is not None:
                published = await self._broker.find(channel, claim)
                if published is not None:
                    return published.position
            shelf = self._cache.get(channel)
            if shelf is None:
                shelf = _CachedBook(OrderBook(self._max_levels))
            position = await self._publish(channel, shelf, data, ts_ms, kind, claim)
            self._cache[channel] = shelf
            return position
        finally:
            self._locks.release(channel)

    async def _publish(
        self,
        channel: str,
        cached: _CachedBook,
        data: BookData,
        ts_ms: int,
        kind: str,
        claim: Claim | None,
    ) -> Position:
        for _ in range(_MAX_ATTEMPTS):
            expected = cached.position
            if expected is None:
                expected = await self._load(channel, cached)
                if expected is None:
                    continue
            try:
                change = _apply(cached, kind, data)
            except RequestError:
                # Unless somebody else has published, and it is right after all.
                if await self._broker.head(channel) == expected:
                    raise
                cached.position = None
                continue
            try:
                receipt = await self._send(channel, cached, change, ts_ms, kind, claim, expected)
            except WriteConflict:
                # It is read again, and the change with it is gone.
                cached.position = None
                continue
            except BaseException:
                # As far as anybody knows nobody will hear of the change. Should it have gone
                # through, the head has moved, and the book is read again.
                change.revert()
                raise
            if receipt.position != Position(expected.epoch, expected.seq + 1):
                # It had been published before, while this one was on its way.
                change.revert()
                return receipt.position
            cached.position, cached.lost = receipt.position, False
            return receipt.position
        raise WriteConflict

    async def _send(
        self,
        channel: str,
        cached: _CachedBook,
        change: BookChange,
        ts_ms: int,
        kind: str,
        claim: Claim | None,
        expected: Position,
    ) -> Receipt:
        return await self._broker.publish(
            channel,
            dumps(change.body()),
            ts_ms,
            kind=kind,
            claim=claim,
            full_state=lambda: dumps(cached.book.snapshot().body()),
            expected_head=expected,
        )

    async def _load(self, channel: str, cached: _CachedBook) -> Position | None:
        """Make the book what the broker has; None where that changes as we look."""
        latest = await self._broker.latest(channel)
        if latest is not None:
            data = orjson.loads(latest.data)
            cached.book.replace(cast("Levels", data["bids"]), cast("Levels", data["asks"]))
            cached.position, cached.lost = latest.position, False
            return cached.position
        head = await self._broker.head(channel)
        if head.seq:
            return None
        cached.lost = channel in self._cache
        cached.book.replace((), ())
        cached.position = head
        return head


def _apply(cached: _CachedBook, kind: str, data: BookData) -> BookChange:
    if cached.lost and kind != "snapshot":
        raise RequestError(
            ErrorCode.REQUEST_INVALID, "the book was lost with the broker's data: publish all of it"
        )
    return cached.book.apply(kind, data.bids, data.asks, data.checksum)
