"""The tables of the data file, and the statements that write them.

A statement writes any number of rows in one step: the `sqlite3` module gives up the interpreter
lock for each step, and the writer may have to wait for it after each.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from server.brokers.errors import BrokerError

FILE_NAME = "floorcast.db"
# Counts up with the tables; `_MIGRATIONS[n]` leads from version n to n + 1.
VERSION = 3
_MAX_ROWS = 512

Row = Sequence[str | bytes | int | None]

# The value of `is_change` for a channel whose newest changes may be missing.
LOST = 2

# `states` has the newest entry of each channel whose newest entry is not in `entries`: `is_exact`
# if it is surely the newest, `is_change` if the channel's entries are changes of its state. In the
# file of a stopped process, a seq of 0 is the position of a watched channel without entries.
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    channel TEXT, seq INTEGER, epoch TEXT, ts_ms INTEGER, kind TEXT, data BLOB,
    org TEXT, user TEXT, PRIMARY KEY (channel, seq)) WITHOUT ROWID;
CREATE TABLE states (
    channel TEXT PRIMARY KEY, seq INTEGER, epoch TEXT, ts_ms INTEGER, kind TEXT, data BLOB,
    is_exact INTEGER, is_change INTEGER) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT PRIMARY KEY, digest BLOB, org TEXT, user TEXT,
    epoch TEXT, seq INTEGER, ts_ms INTEGER, at_ms INTEGER) WITHOUT ROWID;
CREATE INDEX claims_at ON claims (at_ms);
CREATE TABLE sessions (
    org TEXT, id TEXT, created_by TEXT, created_at_ms INTEGER, closed INTEGER, metadata BLOB,
    PRIMARY KEY (org, id)) WITHOUT ROWID;
CREATE TABLE notices (
    key BLOB PRIMARY KEY, until_ms INTEGER, body BLOB) WITHOUT ROWID;
CREATE TABLE connections (
    key TEXT PRIMARY KEY, until_ms INTEGER, body BLOB) WITHOUT ROWID;
"""

_KEPT_TABLE = """
CREATE TABLE kept (
    kind TEXT, key TEXT, until_ms INTEGER, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE INDEX kept_until ON kept (until_ms);
"""

# Only in the file of a stopped process: who was in a session, after how many events.
_MEMBERS = """
ALTER TABLE sessions ADD COLUMN revision INTEGER;
ALTER TABLE sessions ADD COLUMN members BLOB;
"""

_MIGRATIONS: dict[int, str] = {0: _TABLES, 1: _KEPT_TABLE, 2: _MEMBERS}

TABLES = ("meta", "entries", "states", "claims", "sessions", "notices", "connections", "kept")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement for many rows; `{}` in its text stands for them, as the columns of `VALUES`."""

    text: str
    columns: int

    def run(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Run it for all rows."""
        for start in range(0, len(rows), _MAX_ROWS):
            part = rows[start : start + _MAX_ROWS]
            # Few different sizes: each is compiled once.
            size = 1 << (len(part) - 1).bit_length()
            values = [value for row in part for value in row]
            values += [None] * (size - len(part)) * self.columns
            connection.execute(_for_rows(self, size), values)


@lru_cache(maxsize=256)
def _for_rows(statement: Statement, size: int) -> str:
    row = "(" + ",".join("?" * statement.columns) + ")"
    rows = f"SELECT * FROM (VALUES {','.join([row] * size)}) WHERE column1 IS NOT NULL"  # noqa: S608
    return statement.text.format(rows)


# In the order in which a batch runs them: a channel may be forgotten and published again in one.
FORGET_ENTRIES = Statement("DELETE FROM entries WHERE channel IN ({})", 1)
FORGET_STATES = Statement("DELETE FROM states WHERE channel IN ({})", 1)
# Delete the entries of a channel before a seq.
TRIM = Statement(
    "DELETE FROM entries WHERE (channel, seq) IN (SELECT e.channel, e.seq FROM ({}) AS t"
    " JOIN entries AS e ON e.channel = t.column1 AND e.seq < t.column2)",
    2,
)
ENTRIES = Statement("INSERT OR REPLACE INTO entries {}", 8)
STATES = Statement("INSERT OR REPLACE INTO states {}", 8)
CLAIMS = Statement("INSERT OR REPLACE INTO claims {}", 8)
EXPIRE_CLAIMS = Statement("DELETE FROM claims WHERE at_ms <= (SELECT max(column1) FROM ({}))", 1)
DROP_SESSIONS = Statement("DELETE FROM sessions WHERE (org, id) IN ({})", 2)
SESSIONS = Statement("INSERT OR REPLACE INTO sessions {}", 8)
NOTICES = Statement("INSERT OR REPLACE INTO notices {}", 3)
DROP_NOTICES = Statement("DELETE FROM notices WHERE key IN ({})", 1)
EXPIRE_NOTICES = Statement(
    "DELETE FROM notices WHERE until_ms <= (SELECT max(column1) FROM ({}))", 1
)
CONNECTIONS = Statement("INSERT OR REPLACE INTO connections {}", 3)
KEPT = Statement("INSERT OR REPLACE INTO kept {}", 4)
EXPIRE_KEPT = Statement("DELETE FROM kept WHERE until_ms <= (SELECT max(column1) FROM ({}))", 1)

STATEMENTS = (
    FORGET_ENTRIES,
    FORGET_STATES,
    TRIM,
    ENTRIES,
    STATES,
    CLAIMS,
    EXPIRE_CLAIMS,
    DROP_SESSIONS,
    SESSIONS,
    DROP_NOTICES,
    NOTICES,
    EXPIRE_NOTICES,
    CONNECTIONS,
    KEPT,
    EXPIRE_KEPT,
)


def migrate(connection: sqlite3.Connection, file: Path) -> None:
    """Bring an older or new file to this version; raises `BrokerError` for a newer one."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise BrokerError(
            f"{file} has version {version} of the tables, this Floorcast knows {VERSION}: "
            "run the newer one"
        )
    while version < VERSION:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;"
        )
        version += 1
