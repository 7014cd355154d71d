"""Publishes order books; each change is validated against the broker's current book."""

from dataclasses import dataclass
from typing import cast

import orjson

from client_sdk.contract import BookData, ErrorCode
from server.core.errors import RequestError, WriteConflict
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Position, Receipt
from server.core.log.idempotency import Claim
from server.core.market.book import MAX_LEVEL_BYTES, BookChange, Levels, OrderBook
from server.core.market.source_time import with_source_ts
from server.core.wire.strict_json import dumps
from server.ports import Broker
from server.services.fifo_locks import FifoLocks

# An attempt fails only if another node has published to the same book.
_MAX_ATTEMPTS = 20
_MAX_WAITING = 1_000


@dataclass(slots=True)
class _CachedBook:
    """A book and its position; None if the book must be loaded from the broker."""

    book: OrderBook
    position: Position | None = None
    # There is no book yet, or it is from before a loss: only a snapshot is valid.
    needs_snapshot: bool = False


class BookPublisher:
    """The order books that this node publishes; other nodes may publish the same books."""

    def __init__(self, broker: Broker, *, max_levels: int) -> None:
        self._broker = broker
        self._max_levels = max_levels
        # Bounded by `TopicShares`, which evicts books together with their topics.
        self._cache: dict[str, _CachedBook] = {}
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
        self._cache.pop(channel, None)

    async def publish(
        self,
        channel: str,
        data: BookData,
        ts_ms: int,
        kind: str,
        claim: Claim | None,
        owner: Owner = SERVER,
        source_ts: int | None = None,
    ) -> Position:
        """Publish a change or a snapshot of a book.

        Raises `RequestError` if the change does not apply to the book or if the book must begin
        with a snapshot, and `WriteConflict` if
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
            position = await self._publish(
                channel, cached, data, ts_ms, kind, claim, owner, source_ts
            )
            self._cache[channel] = cached
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
        source_ts: int | None,
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
                    channel, cached, change, ts_ms, kind, claim, expected, owner, source_ts
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
            cached.position, cached.needs_snapshot = receipt.position, False
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
        source_ts: int | None,
    ) -> Receipt:
        return await self._broker.publish(
            channel,
            with_source_ts(dumps(change.body()), source_ts),
            ts_ms,
            kind=kind,
            claim=claim,
            full_state=lambda: with_source_ts(dumps(cached.book.snapshot().body()), source_ts),
            expected_head=expected,
            owner=owner,
        )

    async def _load(self, channel: str, cached: _CachedBook) -> Position | None:
        """Load the broker's book; returns its position, None if it changed meanwhile."""
        latest = await self._broker.latest(channel)
        if latest is not None:
            data = orjson.loads(latest.data)
            cached.book.replace(cast("Levels", data["bids"]), cast("Levels", data["asks"]))
            cached.needs_snapshot = await self._broker.is_rolled_back(channel)
            cached.position = latest.position
            return cached.position
        head = await self._broker.head(channel)
        if head.seq:
            return None
        # The publisher may not know that the book it is changing was lost.
        cached.needs_snapshot = True
        cached.book.replace((), ())
        cached.position = head
        return head


def _apply(cached: _CachedBook, kind: str, data: BookData) -> BookChange:
    if cached.needs_snapshot and kind != "snapshot":
        raise RequestError(
            ErrorCode.PUBLISH_SNAPSHOT_REQUIRED,
            "this order book is new or was lost: publish a snapshot of the whole book",
        )
    return cached.book.apply(kind, data.bids, data.asks, data.checksum)
