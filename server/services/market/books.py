"""Publishes order books; each change is validated against the broker's current book."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import orjson

from client_sdk.contract import BookData, ErrorCode
from server.core.errors import RequestError, WriteConflict
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Position, Receipt
from server.core.log.idempotency import Claim
from server.core.market.book import MAX_LEVEL_BYTES, BookChange, Levels, OrderBook
from server.core.wire.strict_json import dumps
from server.ports import Broker
from server.services.fifo_locks import FifoLocks

# An attempt fails only if another node has published to the same book.
_MAX_ATTEMPTS = 20
_MAX_WAITING = 1_000
# About 100 bytes each.
_MAX_EVICTED = 100_000


@dataclass(slots=True)
class _CachedBook:
    """A book and its position; None if the book must be loaded from the broker."""

    book: OrderBook
    position: Position | None = None
    # The broker has lost the published book: only a snapshot is valid.
    lost: bool = False


class BookPublisher:
    """The order books that this node publishes; other nodes may publish the same books."""

    def __init__(self, broker: Broker, *, max_levels: int) -> None:
        self._broker = broker
        self._max_levels = max_levels
        # Bounded by `TopicShares`, which evicts books together with their topics.
        self._cache: dict[str, _CachedBook] = {}
        # Evicted books, which may not grow from a change; the oldest first.
        self._evicted: OrderedDict[str, None] = OrderedDict()
        # Serializes the changes of a book: `revert` undoes only the latest change.
        self._locks = FifoLocks(max_waiting=_MAX_WAITING)

    def __contains__(self, channel: object) -> bool:
        return channel in self._cache

    def max_size_bytes(self, channel: str, data: BookData, kind: str) -> int:
        """The most memory that a book can take once this message is published."""
        levels = len(data.bids) + len(data.asks)
        known = 0 if kind == "snapshot" else self.size_bytes(channel)
        return known + min(levels, 2 * self._max_levels) * MAX_LEVEL_BYTES

    def size_bytes(self, channel: str) -> int:
        """About the memory of a book; 0 if this node has not published it."""
        cached = self._cache.get(channel)
        return 0 if cached is None else cached.book.size_bytes

    def evict(self, channel: str) -> None:
        """Drop a book that the broker has forgotten; only a snapshot starts it again."""
        if self._cache.pop(channel, None) is not None:
            self._evicted[channel] = None
            if len(self._evicted) > _MAX_EVICTED:
                self._evicted.popitem(last=False)

    async def publish(
        self,
        channel: str,
        data: BookData,
        ts_ms: int,
        kind: str,
        claim: Claim | None,
        owner: Owner = SERVER,
    ) -> Position:
        """Publish a change or a snapshot of a book.

        Raises `RequestError` if the change does not apply to the book, and `WriteConflict` if
        other nodes publish faster than this one can retry.
        """
        await self._locks.acquire(channel)
        try:
            # Before validation: a retried change may no longer apply to the current book.
            if claim is not None:
                published = await self._broker.find(channel, claim)
                if published is not None:
                    return published.position
            cached = self._cache.get(channel)
            if cached is None:
                cached = _CachedBook(OrderBook(self._max_levels))
            position = await self._publish(channel, cached, data, ts_ms, kind, claim, owner)
            self._cache[channel] = cached
            self._evicted.pop(channel, None)
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
        owner: Owner,
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
                # The cached book may be outdated: refuse only if it is the broker's newest.
                if await self._broker.head(channel) == expected:
                    raise
                cached.position = None
                continue
            try:
                receipt = await self._send(
                    channel, cached, change, ts_ms, kind, claim, expected, owner
                )
            except WriteConflict:
                # Reloading the book also discards the change.
                cached.position = None
                continue
            except BaseException:
                # The outcome may be unknown. If the broker did accept the change, its head
                # has moved, and the next publish reloads the book.
                change.revert()
                raise
            if receipt.position != Position(expected.epoch, expected.seq + 1):
                # A concurrent publish with the same claim came first.
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
        owner: Owner,
    ) -> Receipt:
        return await self._broker.publish(
            channel,
            dumps(change.body()),
            ts_ms,
            kind=kind,
            claim=claim,
            full_state=lambda: dumps(cached.book.snapshot().body()),
            expected_head=expected,
            owner=owner,
        )

    async def _load(self, channel: str, cached: _CachedBook) -> Position | None:
        """Load the broker's book; returns its position, None if it changed meanwhile."""
        latest = await self._broker.latest(channel)
        if latest is not None:
            data = orjson.loads(latest.data)
            cached.book.replace(cast("Levels", data["bids"]), cast("Levels", data["asks"]))
            cached.position, cached.lost = latest.position, False
            return cached.position
        head = await self._broker.head(channel)
        if head.seq:
            return None
        cached.lost = channel in self._cache or channel in self._evicted
        cached.book.replace((), ())
        cached.position = head
        return head


def _apply(cached: _CachedBook, kind: str, data: BookData) -> BookChange:
    if cached.lost and kind != "snapshot":
        raise RequestError(
            ErrorCode.REQUEST_INVALID, "the broker lost this order book: publish a snapshot"
        )
    return cached.book.apply(kind, data.bids, data.asks, data.checksum)
