"""The data file: opened with checks, written one batch at a time."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from server.brokers.errors import BrokerError
from server.brokers.file.schema import FILE_NAME, STATEMENTS, Row, Statement, migrate

_PAGE_BYTES = 4096
_VACUUM_PAGES = 2_000
# Rows of `meta`: whether the file was closed, on which boot of the machine it was last opened, and
# whether its commits waited for the disk.
_CLEAN, _BOOT, _FSYNC = "clean", "boot", "fsync"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Database:
    """One connection to the data file; used in one thread at a time."""

    def __init__(self, folder: Path, *, fsync: bool, max_bytes: int, name: str = FILE_NAME) -> None:
        self.file = folder / name
        self._fsync = fsync
        self._max_pages = max(64, max_bytes // _PAGE_BYTES)
        self._connection: sqlite3.Connection | None = None
        # Whether the last process ended without closing the file.
        self.was_killed = False
        # Whether commits may be missing: after a repair, or a power cut without `fsync`.
        self.has_lost_commits = False

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._connection is not None
        return self._connection

    def open(self) -> None:
        """Open or create the file; raises `BrokerError` with what to do if it is unusable."""
        try:
            self._open()
        except OSError as error:
            raise BrokerError(f"cannot open {self.file}: {error.strerror}") from None
        except sqlite3.Error as error:
            self.abandon()
            raise BrokerError(_explain(self.file, error)) from None
        except BrokerError:
            self.abandon()
            raise

    def _open(self) -> None:
        create_private(self.file)
        connection = self._connection = sqlite3.connect(
            self.file, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        # Only a new file can still choose these two.
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._fsync else 'NORMAL'}")
        # A checkpoint takes tens of milliseconds, in which all publishers wait: not too often.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA temp_store = MEMORY")
        is_new = not connection.execute("PRAGMA user_version").fetchone()[0]
        if not is_new:
            _check(connection, self.file)
        migrate(connection, self.file)
        connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        boot = _boot_id()
        self.was_killed = not is_new and meta.get(_CLEAN) != "1"
        self.has_lost_commits = self.was_killed and (
            _BOOT not in meta or (meta[_BOOT] != boot and meta[_FSYNC] != "1")
        )
        self._set_meta({_CLEAN: "0", _BOOT: boot, _FSYNC: str(int(self._fsync))})

    def close(self) -> None:
        """Mark the file as complete, and close it."""
        try:
            self._set_meta({_CLEAN: "1"})
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file without marking it as complete; a no-op if it is closed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def write(self, rows: Mapping[Statement, Sequence[Row]]) -> None:
        """Write all rows in one transaction; raises `sqlite3.Error` if nothing was written."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in STATEMENTS:
                if statement in rows:
                    statement.run(connection, rows[statement])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def vacuum(self) -> None:
        """Give some of the space of deleted rows back to the disk."""
        # On a full disk it fails; the next write reports that.
        with contextlib.suppress(sqlite3.Error):
            self.connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()

    def read(self, query: str, read_row: Callable[..., None]) -> None:
        """Call `read_row` with the columns of each row of a query."""
        for row in self.connection.execute(query):
            read_row(*row)

    def is_full(self, failure: Exception) -> bool:
        """Whether a write failed because the file has reached `max_bytes`, not for the disk."""
        if getattr(failure, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
            return False
        pages: int = self.connection.execute("PRAGMA page_count").fetchone()[0]
        free: int = self.connection.execute("PRAGMA freelist_count").fetchone()[0]
        return pages - free >= self._max_pages - 64

    def _set_meta(self, values: Mapping[str, str]) -> None:
        self.connection.executemany("REPLACE INTO meta VALUES (?, ?)", list(values.items()))


def create_private(file: Path) -> None:
    """Create a file that only its owner can read, unless it exists; SQLite's others follow it."""
    os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _check(connection: sqlite3.Connection, file: Path) -> None:
    """Refuse a damaged file: at the first page that is read later it would be too late."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise BrokerError(damaged(file, found))


def damaged(file: Path, problem: str) -> str:
    """The error for a damaged file."""
    return (
        f"{file} is damaged ({problem.splitlines()[0]}): restore a backup, or keep what is "
        f"readable with `floorcast check --data {file.parent} --repair`"
    )


def _explain(file: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(file, str(error))
    return f"cannot open {file}: {error}"


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        # Without one every kill counts as a power cut.
        return ""
