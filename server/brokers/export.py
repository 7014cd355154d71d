"""Copies what Redis keeps into a new data folder: a cluster of nodes can become one process."""

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import orjson

from server.brokers.errors import BrokerError
from server.brokers.file.database import Database
from server.brokers.file.lock import FolderLock
from server.brokers.file.schema import (
    CLAIMS,
    CONNECTIONS,
    ENTRIES,
    FILE_NAME,
    KEPT,
    LOST,
    NOTICES,
    SESSIONS,
    STATES,
    Row,
    Statement,
)
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.connection.keys import Keys, channel_of_key, head_key
from server.brokers.redis.connection.replies import as_optional_bytes, malformed_reply
from server.brokers.redis.notices.codec import decode_notice, encode_notice
from server.brokers.redis.presence.codec import creator_of, metadata_of
from server.core.log.entries import Entry
from server.core.log.idempotency import hashed_key
from server.core.sessions.notices import Notice
from server.core.sessions.records import key_of_channel

_COUNT = 1000
_MAX_ENTRIES = 2**31
_WRITE_ROWS = 5000


class DataExport:
    """Copies a Redis whose servers are stopped; the folder must have no data file.

    `counts` has what was copied; `on_progress` is called with it after each part.
    """

    def __init__(
        self,
        broker: RedisBroker,
        keys: Keys,
        prefix: str,
        *,
        window_seconds: float,
        on_progress: Callable[[Counter[str]], None],
    ) -> None:
        self._broker = broker
        self._keys = keys
        self._prefix = prefix.encode()
        self._window_ms = int(window_seconds * 1000)
        self._on_progress = on_progress
        self._rows: dict[Statement, list[Row]] = defaultdict(list)
        self._now_ms = int(time.time() * 1000)
        self.counts: Counter[str] = Counter()

    async def run(self, folder: Path) -> None:
        """Copy everything; raises `BrokerError` if the folder is in use, or has a data file."""
        file = _new_file(folder)
        lock = FolderLock(folder)
        lock.acquire()
        # Under its name only once it is complete.
        draft = Database(folder, fsync=True, max_bytes=2**50, name=f"{FILE_NAME}.new")
        draft.file.unlink(missing_ok=True)
        try:
            draft.open()
            async for key in self._scan():
                await self._copy(key)
                if sum(map(len, self._rows.values())) >= _WRITE_ROWS:
                    self._write(draft)
            self._write(draft)
            draft.close()
            draft.file.rename(file)
        finally:
            draft.abandon()
            lock.release()

    def _write(self, database: Database) -> None:
        database.write(self._rows)
        self._rows.clear()
        self._on_progress(self.counts)

    async def _scan(self) -> AsyncIterator[bytes]:
        cursor, seen = b"0", set[bytes]()
        while True:
            match await self._broker.run(
                (b"SCAN", cursor, b"MATCH", self._prefix + b":*", b"COUNT", _COUNT)
            ):
                case [bytes() as cursor, [*keys]]:
                    pass
                case _:
                    raise malformed_reply()
            for key in keys:
                # A scan can return a key twice.
                if isinstance(key, bytes) and key not in seen:
                    seen.add(key)
                    yield key
            if cursor == b"0":
                return

    async def _copy(self, key: bytes) -> None:
        base, _, kind = key.rpartition(b":")
        channel = channel_of_key(base)
        if base == self._prefix + b":recovery:saved":
            await self._copy_connection(key, kind.decode())
        elif base.endswith(b":claim"):
            await self._copy_claim(key, kind.decode())
        elif channel is None:
            return
        elif kind == b"head":
            await self._copy_channel(channel)
        elif kind == b"room":
            await self._copy_session(key, channel)
        elif kind == b"waiting" and channel == "notices":
            await self._copy_notices(key)
        elif kind == b"settled" and channel == "notices":
            await self._copy_acknowledged(key)
        elif kind == b"values" and channel.startswith("kept@"):
            await self._copy_kept(key, channel.removeprefix("kept@"))

    async def _copy_channel(self, channel: str) -> None:
        broker, key = self._broker, head_key(self._keys.base(channel))
        # Reading begins a new epoch if Redis may have lost messages.
        latest, head = await broker.latest(channel), await broker.head(channel)
        if latest is None or not head.seq:
            return
        self.counts["channels"] += 1
        is_book = await broker.run((b"HGET", key, b"whole_seq")) is not None
        entries = [] if is_book else await broker.before(channel, None, _MAX_ENTRIES)
        entries = entries if entries and entries[-1].position.seq == head.seq else []
        owner = as_optional_bytes(await broker.run((b"HGET", key, b"owner"))) or b"\n"
        org, _, user = owner.decode().partition("\n")
        is_forked = bool(entries) and entries[-1].position.epoch != head.epoch
        for entry in entries:
            epoch = head.epoch if is_forked else entry.position.epoch
            self._rows[ENTRIES].append((*_fields(entry, epoch), org, user))
        self.counts["entries"] += len(entries)
        if not entries:
            is_change: int = is_book
            if is_book and await broker.is_rolled_back(channel):
                is_change = LOST
            self._rows[STATES].append((*_fields(latest, head.epoch), 1, is_change))

    async def _copy_claim(self, key: bytes, digest: str) -> None:
        known = as_optional_bytes(await self._broker.run((b"GET", key)))
        if known is None:
            return
        content, epoch, seq, ts_ms = known.decode().split(" ")
        self._rows[CLAIMS].append(
            (
                *(hashed_key(digest), bytes.fromhex(content), "", "", epoch, int(seq)),
                *(int(ts_ms), self._now_ms),
            )
        )
        self.counts["ids"] += 1

    async def _copy_session(self, key: bytes, channel: str) -> None:
        session, facts = key_of_channel(channel), await self._broker.run((b"HGET", key, b"facts"))
        closed = await self._broker.run((b"HGET", key, b"closed"))
        if session is None or not isinstance(facts, bytes):
            return
        metadata = orjson.dumps(dict(metadata_of(facts)))
        self._rows[SESSIONS].append(
            (*session, creator_of(facts), self._now_ms, closed is not None, metadata, None, None)
        )
        self.counts["sessions"] += 1

    async def _copy_notices(self, key: bytes) -> None:
        for name, message in (await self._hash(key)).items():
            decoded = decode_notice(message.partition(b" ")[2])
            if decoded is not None:
                status, notice, until_ms = decoded
                body = encode_notice(notice, status == "critical", until_ms, status)
                self._rows[NOTICES].append((name, until_ms, body))
                self.counts["notices"] += 1

    async def _copy_acknowledged(self, key: bytes) -> None:
        found = await self._broker.run((b"ZRANGE", key, 0, -1, b"WITHSCORES"))
        if not isinstance(found, Sequence) or isinstance(found, bytes):
            raise malformed_reply()
        for name, score in zip(found[::2], found[1::2], strict=True):
            if isinstance(name, bytes) and isinstance(score, bytes):
                org, user_id, notice_id = orjson.loads(name)
                notice, until_ms = Notice(org, user_id, notice_id, "", 0, b"{}"), int(float(score))
                body = encode_notice(notice, True, until_ms, "seen")
                self._rows[NOTICES].append((name, until_ms, body))
                self.counts["acknowledged"] += 1

    async def _copy_kept(self, key: bytes, kind: str) -> None:
        for name, value in (await self._hash(key)).items():
            until_ms, _, data = value.partition(b" ")
            if name.startswith(b"="):
                self._rows[KEPT].append((kind, name[1:].decode(), int(until_ms), data))
                self.counts["kept"] += 1

    async def _copy_connection(self, key: bytes, name: str) -> None:
        saved = as_optional_bytes(await self._broker.run((b"GET", key)))
        if saved is not None:
            self._rows[CONNECTIONS].append((name, self._now_ms + self._window_ms, saved))
            self.counts["connections"] += 1

    async def _hash(self, key: bytes) -> dict[bytes, bytes]:
        script = b"return redis.call('HGETALL', KEYS[1])"
        flat = await self._broker.run((b"EVAL", script, 1, key))
        if not isinstance(flat, Sequence) or isinstance(flat, bytes):
            raise malformed_reply()
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {
            name: value
            for name, value in pairs
            if isinstance(name, bytes) and isinstance(value, bytes)
        }


def _new_file(folder: Path) -> Path:
    file = folder / FILE_NAME
    if file.exists():
        raise BrokerError(f"{file} exists: export into a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerError(f"cannot create {folder}: {error.strerror}") from None
    return file


def _fields(entry: Entry, epoch: str) -> Row:
    seq, ts_ms = entry.position.seq, entry.ts_ms
    return (entry.channel, seq, epoch, ts_ms, entry.kind, entry.data)
