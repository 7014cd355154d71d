"""Reads channel logs: the head, the entries after a position, and the current state."""

import contextlib
from collections.abc import Callable, Iterable

from server.brokers.redis.connection.client import Command, evaluate
from server.brokers.redis.connection.keys import Keys, head_key, log_key
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.replies import Reply, as_list, malformed_reply
from server.brokers.redis.connection.subscribers import Subscribers
from server.brokers.redis.log.book_state import rebuild_book
from server.brokers.redis.log.codec import decode_entry
from server.brokers.redis.log.gap_detector import LogState
from server.brokers.redis.log.scripts import ScriptsByKind
from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Position
from server.ports import Clock


class LogReader:
    """Stateless; each call is one script and one round trip."""

    def __init__(
        self,
        pipeline: Pipeline,
        subscribers: Subscribers,
        scripts: ScriptsByKind,
        keys: Keys,
        clock: Clock,
        *,
        new_epoch: Callable[[], bytes],
        max_entry_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._subscribers = subscribers
        self._scripts = scripts
        self._keys = keys
        self._clock = clock
        self._new_epoch = new_epoch
        self._max_entry_bytes = max_entry_bytes

    async def read(self, channel: str, known: Position | None, *, state: bool) -> LogState:
        """Read the head, the entries after `known`, and the latest entry if `state` is set."""
        base = self._keys.base(channel)
        command: Command = evaluate(
            self._scripts.of(channel).read,
            [head_key(base), log_key(base)],
            self._new_epoch(),
            b"" if known is None else known.epoch.encode(),
            0 if known is None else known.seq,
            self._oldest_ms(channel),
            b"1" if state else b"",
        )
        reply = await self._pipeline.run(command)
        match reply:
            case [
                bytes() as epoch,
                int() as seq,
                bytes() as last,
                bytes() as full_state,
                list() as updates,
                int() as complete,
                list() as entries,
            ]:
                pass
            case _:
                raise malformed_reply()
        head = Position(epoch.decode(), seq)
        whole = self._decode(channel, full_state)
        latest = rebuild_book(
            self._decode(channel, last), whole, self._decode_all(channel, updates)
        )
        return LogState(
            head,
            # The entry itself may be from the previous epoch.
            None if latest is None else latest._replace(position=head),
            tuple(self._decode_all(channel, entries)) if complete else None,
            rolled_back=whole is not None and whole.position.epoch != head.epoch,
        )

    async def before(self, channel: str, seq: int | None, limit: int) -> list[Entry]:
        """The last history entries before a seq, or the newest ones, oldest first."""
        if limit < 1 or (seq is not None and seq <= 1):
            return []
        log = log_key(self._keys.base(channel))
        end = b"+" if seq is None else b"(%d-0" % seq
        script = self._scripts.of(channel).before
        found = as_list(await self._pipeline.run(evaluate(script, [log], end, limit)))
        entries = self._decode_all(channel, reversed(found))
        oldest = self._oldest_ms(channel)
        fresh = [each for each in entries if each.ts_ms > oldest]
        # The newest entry never expires.
        return fresh or (entries[-1:] if seq is None else [])

    async def forget(self, channel: str, silent_since_ms: int | None) -> bool:
        """Delete a channel unless a node watches it, or if its newest entry is younger."""
        silent = b"" if silent_since_ms is None else silent_since_ms
        # If Redis is down, the keys expire after the channel's idle time.
        with contextlib.suppress(FloorcastError):
            if await self._subscribers.may_exist(self._keys.base(channel)):
                return False
            return bool(await self._pipeline.run(self._forget(channel, silent)))
        return False

    def forget_empty(self, channel: str) -> None:
        """Delete a channel without entries, unless a node watches it; does not wait."""
        self._pipeline.submit_unchecked(self._forget(channel, 0))

    def _forget(self, channel: str, silent_since_ms: bytes | int) -> Command:
        base = self._keys.base(channel)
        return evaluate(
            self._scripts.of(channel).forget, [head_key(base), log_key(base)], base, silent_since_ms
        )

    def _oldest_ms(self, channel: str) -> int:
        return int(self._clock.time() * 1000) - self._scripts.of(channel).bounds.age_ms

    def _decode(self, channel: str, message: Reply) -> Entry | None:
        return decode_entry(channel, message, self._max_entry_bytes) if message else None

    def _decode_all(self, channel: str, messages: Iterable[Reply]) -> list[Entry]:
        decoded = [self._decode(channel, each) for each in messages]
        return [each for each in decoded if each is not None]
