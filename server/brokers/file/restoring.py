"""Brings the data file's channels and ids back into memory."""

from server.brokers.file.database import Database
from server.brokers.file.schema import LOST
from server.brokers.memory.broker import MemoryBroker
from server.core.limits.shares import Owner
from server.core.log.entries import Entry, Position, Receipt
from server.core.log.idempotency import Claim
from server.ports import Clock


class Restorer:
    """Fills a memory broker that nobody uses yet.

    After a crash a channel whose newest entries may be missing goes on in a new epoch: its clients
    learn that they missed something.
    """

    def __init__(self, memory: MemoryBroker, clock: Clock) -> None:
        self._memory = memory
        self._clock = clock
        # The epoch of channels that restart.
        self._epoch = memory.head_of("").epoch
        # The oldest and the newest stored entry of each channel.
        self.first_seqs: dict[str, int] = {}
        self.last_seqs: dict[str, int] = {}
        # Channels of changes whose newest state is unknown.
        self.lost: set[str] = set()

    def restore(self, database: Database) -> None:
        """Read the whole file, in the writer thread."""
        self._restart_epochs(database)
        _delete_orphans(database)
        if database.was_killed:
            _delete_empty(database)
        database.read(
            "SELECT channel, seq, epoch, ts_ms, kind, data, org, user FROM entries"
            " ORDER BY channel, seq",
            self._restore_entry,
        )
        database.read(
            "SELECT channel, seq, epoch, ts_ms, kind, data, is_change FROM states",
            self._restore_state,
        )
        _delete_empty(database)
        database.read(
            "SELECT key, digest, org, user, epoch, seq, ts_ms, at_ms FROM claims ORDER BY at_ms",
            self._restore_claim,
        )

    def _restart_epochs(self, database: Database) -> None:
        """Restart the channels whose newest entries may be missing."""
        if not database.was_killed:
            return
        connection, epoch = database.connection, (self._epoch,)
        if database.has_lost_commits:
            connection.execute("UPDATE entries SET epoch = ?", epoch)
            connection.execute("UPDATE states SET is_exact = 0")
        connection.execute("UPDATE states SET epoch = ? WHERE NOT is_exact", epoch)
        connection.execute(
            "UPDATE states SET is_change = ? WHERE is_change AND NOT is_exact", (LOST,)
        )

    def _restore_entry(
        self,
        channel: str,
        seq: int,
        epoch: str,
        ts_ms: int,
        kind: str,
        data: bytes,
        org: str,
        user: str,
    ) -> None:
        entry = Entry(channel, Position(epoch, seq), ts_ms, data, kind)
        self.first_seqs.setdefault(channel, seq)
        if self.last_seqs.get(channel, seq - 1) != seq - 1:
            # A repair could not read what was in between: `since` must not skip it.
            self._memory.drop_history(channel)
        self.last_seqs[channel] = seq
        self._memory.apply(entry, in_history=True, owner=Owner(org, user))

    def _restore_state(
        self,
        channel: str,
        seq: int,
        epoch: str,
        ts_ms: int,
        kind: str,
        data: bytes,
        is_change: int,
    ) -> None:
        if not seq:
            self._memory.pin(channel, epoch)
            return
        if self.last_seqs.get(channel, 0) >= seq:
            return
        if is_change == LOST:
            self.lost.add(channel)
        self._memory.apply(Entry(channel, Position(epoch, seq), ts_ms, data, kind))

    def _restore_claim(
        self,
        key: str,
        digest: bytes,
        org: str,
        user: str,
        epoch: str,
        seq: int,
        ts_ms: int,
        at_ms: int,
    ) -> None:
        age_seconds = max(0.0, self._clock.time() - at_ms / 1000)
        self._memory.restore_claim(
            Claim(key, digest, Owner(org, user)), Receipt(Position(epoch, seq), ts_ms), age_seconds
        )


def _delete_empty(database: Database) -> None:
    """Delete the positions of channels without entries: they hold for one restart."""
    database.connection.execute("DELETE FROM states WHERE seq = 0")


def _delete_orphans(database: Database) -> None:
    """Delete the logs of sessions that are gone: a crash can come between the two deletions."""
    sessions = "SELECT 'session@' || length(org) || ':' || org || ':' || id FROM sessions"
    for table in ("entries", "states"):
        database.connection.execute(
            f"DELETE FROM {table} WHERE channel >= 'session@' AND channel < 'session@~'"  # noqa: S608
            f" AND channel NOT IN ({sessions})"
        )
