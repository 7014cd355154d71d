"""Deletes from the data file what memory no longer keeps."""

from collections.abc import Iterable

from server.brokers.file.schema import EXPIRE_CLAIMS, EXPIRE_KEPT, EXPIRE_NOTICES, TRIM
from server.brokers.file.store import FileStore
from server.brokers.memory.broker import MemoryBroker
from server.core.log.entries import Entry
from server.ports import Clock

# Channels looked at in one pass besides those that were written: silent ones expire too.
_SILENT_PER_PASS = 500


class Retention:
    """Which entries the data file has, by channel."""

    def __init__(
        self,
        memory: MemoryBroker,
        store: FileStore,
        first_seqs: dict[str, int],
        last_seqs: dict[str, int],
    ) -> None:
        self._memory = memory
        self._store = store
        # The oldest entry in the file. The channel that was looked at longest ago comes first.
        self._first_seqs = first_seqs
        self._last_seqs = last_seqs
        self._written: set[str] = set()

    def add(self, entry: Entry) -> None:
        """Take note of an entry in the file."""
        channel, seq = entry.channel, entry.position.seq
        self._first_seqs.setdefault(channel, seq)
        self._last_seqs[channel] = seq
        self._written.add(channel)

    def forget(self, channel: str) -> None:
        """Forget a deleted channel."""
        self._first_seqs.pop(channel, None)
        self._last_seqs.pop(channel, None)
        self._written.discard(channel)

    def is_last_kept(self, entry: Entry) -> bool:
        """Whether an entry was written before it was delivered."""
        return self._last_seqs.get(entry.channel) == entry.position.seq

    def trim(self, idempotency_seconds: float, clock: Clock) -> set[str]:
        """Delete what is too old, and entries that have made room for others.

        Returns the channels that have no entry in the file any more: write their states.
        """
        now_ms = int(clock.time() * 1000)
        self._store.add(EXPIRE_CLAIMS, (now_ms - int(idempotency_seconds * 1000),))
        self._store.add(EXPIRE_NOTICES, (now_ms,))
        self._store.add(EXPIRE_KEPT, (now_ms,))
        written, self._written = self._written, set()
        without_history = set()
        for channel in (*written, *self._longest_unseen()):
            known = self._first_seqs.get(channel)
            if known is None:
                continue
            first = self._memory.history_start(channel)
            if first is None:
                without_history.add(channel)
                del self._first_seqs[channel]
                self._store.add(TRIM, (channel, self._last_seqs[channel] + 1))
            elif first > known:
                self._first_seqs[channel] = first
                self._store.add(TRIM, (channel, first))
        return without_history

    def _longest_unseen(self) -> Iterable[str]:
        seqs = self._first_seqs
        names = [name for name, _ in zip(seqs, range(_SILENT_PER_PASS), strict=False)]
        for name in names:
            seqs[name] = seqs.pop(name)
        return names
