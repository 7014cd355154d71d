"""Copies a data file into Redis, with all positions: a server can grow to several nodes."""

import asyncio
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from server.brokers.errors import BrokerError
from server.brokers.file.lock import FolderLock
from server.brokers.file.repair import check_file
from server.brokers.file.schema import FILE_NAME, LOST
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.connection.keys import Keys, head_key, log_key
from server.brokers.redis.log.scripts import INCARNATION_FUNCTION
from server.brokers.redis.notices.codec import decode_notice
from server.core.limits.shares import Owner
from server.core.log.entries import Entry, Position
from server.core.log.idempotency import Claim
from server.ports import NoticeStore, PresenceManager

# KEYS: head, log. ARGV: the epoch and seq that the next message follows on, how long they last.
# Returns 0, and changes nothing, if Redis has the channel already.
_BEGIN = (
    INCARNATION_FUNCTION
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'seq', ARGV[2], 'home', home())
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""
).encode()
_BEGIN_MS = 600_000
# Channels copied at the same time; the messages of one follow each other.
_CONCURRENT = 100
_CONNECTION = "import"


class DataImport:
    """Copies the file of a stopped server; what Redis has already stays as it is there.

    `counts` has the number of channels, entries, sessions and notices, and of what was skipped;
    `on_progress` is called with it after each part.
    """

    def __init__(
        self,
        folder: Path,
        broker: RedisBroker,
        keys: Keys,
        *,
        on_progress: Callable[[Counter[str]], None],
    ) -> None:
        self._folder = folder
        self._broker = broker
        self._keys = keys
        self._on_progress = on_progress
        self.counts: Counter[str] = Counter()

    async def run(self, presence: PresenceManager, notices: NoticeStore) -> None:
        """Copy everything; raises `BrokerError` if the file is in use, missing or damaged."""
        check_file(self._folder)
        lock = FolderLock(self._folder)
        lock.acquire()
        try:
            with sqlite3.connect(self._folder / FILE_NAME) as connection:
                await self._copy_sessions(connection, presence)
                await self._copy_channels(connection)
                await self._copy_notices(connection, notices)
            connection.close()
        except sqlite3.Error as error:
            raise BrokerError(f"cannot read {self._folder}: {error}") from None
        finally:
            lock.release()

    async def _copy_channels(self, connection: sqlite3.Connection) -> None:
        claims = _read_claims(connection)
        channels = [row[0] for row in connection.execute("SELECT DISTINCT channel FROM entries")]
        for some in _parts(channels, _CONCURRENT):
            await asyncio.gather(*(self._copy_history(connection, each, claims) for each in some))
            self._on_progress(self.counts)
        was_killed = dict(connection.execute("SELECT name, value FROM meta")).get("clean") != "1"
        states = connection.execute(
            "SELECT channel, epoch, seq, ts_ms, data, kind, is_exact, is_change FROM states"
            " WHERE seq > 0"
        ).fetchall()
        known = {*channels}
        for some in _parts([row for row in states if row[0] not in known], _CONCURRENT):
            await asyncio.gather(*(self._copy_state(row, was_killed=was_killed) for row in some))
            self._on_progress(self.counts)

    async def _copy_history(
        self, connection: sqlite3.Connection, channel: str, claims: dict[Position, list[Claim]]
    ) -> None:
        rows = connection.execute(
            "SELECT seq, epoch, ts_ms, kind, data, org, user FROM entries WHERE channel = ?"
            " ORDER BY seq",
            (channel,),
        ).fetchall()
        if not await self._begin(channel, Position(rows[0][1], rows[0][0] - 1)):
            return
        for seq, epoch, ts_ms, kind, data, org, user in rows:
            claim = _claim_of(claims.get(Position(epoch, seq), ()), channel)
            receipt = await self._broker.publish(
                channel,
                data,
                ts_ms,
                kind=kind,
                claim=claim,
                in_history=True,
                owner=Owner(org, user),
            )
            if receipt.position != Position(epoch, seq):
                raise BrokerError(f"{channel} is in use in Redis: stop its servers")
            self.counts["entries"] += 1

    async def _copy_state(self, row: Sequence[Any], *, was_killed: bool) -> None:
        channel, epoch, seq, ts_ms, data, kind, is_exact, is_change = row
        # Feeds publish it again; an outdated book must not be continued.
        if is_change == LOST or (was_killed and not is_exact):
            self.counts["skipped"] += 1
            return
        if await self._begin(channel, Position(epoch, seq - 1)):
            entry = Entry(channel, Position(epoch, seq), ts_ms, data, kind)
            full_state = (lambda: entry.data) if is_change else None
            await self._broker.publish(channel, data, ts_ms, kind=kind, full_state=full_state)

    async def _begin(self, channel: str, head: Position) -> bool:
        base = self._keys.base(channel)
        keys = (head_key(base), log_key(base))
        begun = await self._broker.run(
            (b"EVAL", _BEGIN, 2, *keys, head.epoch.encode(), head.seq, _BEGIN_MS)
        )
        self.counts["channels" if begun else "skipped"] += 1
        return bool(begun)

    async def _copy_sessions(
        self, connection: sqlite3.Connection, presence: PresenceManager
    ) -> None:
        for org, name, user, closed, metadata in connection.execute(
            "SELECT org, id, created_by, closed, metadata FROM sessions ORDER BY created_at_ms"
        ).fetchall():
            key = (org, name)
            if await presence.participants(key) is not None:
                self.counts["skipped"] += 1
                continue
            await presence.join(_CONNECTION, user, key, orjson.loads(metadata))
            if closed:
                await presence.close(key)
            else:
                await presence.leave(_CONNECTION, key)
            self.counts["sessions"] += 1

    async def _copy_notices(self, connection: sqlite3.Connection, notices: NoticeStore) -> None:
        now_ms = int(time.time() * 1000)
        for (body,) in connection.execute("SELECT body FROM notices ORDER BY until_ms").fetchall():
            decoded = decode_notice(body)
            if decoded is None or decoded[0] != "critical" or decoded[2] <= now_ms:
                continue
            posted = await notices.post(decoded[1], critical=True)
            self.counts["skipped" if posted == 0 else "notices"] += 1


def _read_claims(connection: sqlite3.Connection) -> dict[Position, list[Claim]]:
    claims: dict[Position, list[Claim]] = defaultdict(list)
    for key, digest, org, user, epoch, seq in connection.execute(
        "SELECT key, digest, org, user, epoch, seq FROM claims"
    ):
        claims[Position(epoch, seq)].append(Claim(key, digest, Owner(org, user)))
    return claims


def _claim_of(claims: Iterable[Claim], channel: str) -> Claim | None:
    """The claim of a channel among those at one position; its key names the channel."""
    return next((each for each in claims if channel in each.key.split("\0")), None)


def _parts(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
