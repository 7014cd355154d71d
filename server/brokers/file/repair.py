"""Checks, repairs and copies the data file, without a server that uses it."""

import contextlib
import sqlite3
from pathlib import Path

from server.brokers.errors import BrokerError
from server.brokers.file.database import create_private
from server.brokers.file.lock import FolderLock
from server.brokers.file.schema import FILE_NAME, TABLES, VERSION, migrate

_SUFFIXES = ("", "-wal", "-shm")


def check_file(folder: Path) -> dict[str, int]:
    """Read the whole data file; returns the number of rows of each table.

    Raises `BrokerError` if it is missing, in use, newer than this version, or damaged.
    """
    file = _existing_file(folder)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        connection = sqlite3.connect(file)
        try:
            problems = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
            if problems != ["ok"]:
                raise BrokerError(f"{file} is damaged: {'; '.join(problems)}")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise BrokerError(f"{file} has version {version}, this Floorcast knows {VERSION}")
            # An older version lacks some; the next start brings it up to date.
            existing = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            return {
                table: _count_rows(connection, table)
                for table in TABLES
                if table != "meta" and table in existing
            }
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise BrokerError(f"{file} is damaged: {error}") from None
    finally:
        lock.release()


def repair_file(folder: Path) -> tuple[dict[str, int], Path]:
    """Copy what is readable to a new data file; returns the rows kept, and the old file's new name.

    Raises `BrokerError` if the file is missing or in use.
    """
    file = _existing_file(folder)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        fresh = folder / f"{FILE_NAME}.new"
        fresh.unlink(missing_ok=True)
        kept = _salvage(file, fresh)
        old = _free_name(folder)
        for suffix in _SUFFIXES:
            part = folder / f"{FILE_NAME}{suffix}"
            if part.exists():
                part.rename(old.with_name(old.name + suffix))
        fresh.rename(file)
        return kept, old
    finally:
        lock.release()


def back_up(folder: Path, to: Path) -> int:
    """Copy the data file to a new file while a server may use it; returns the copy's size.

    Raises `BrokerError` if there is no data file, or `to` exists.
    """
    file = _existing_file(folder)
    if to.exists():
        raise BrokerError(f"{to} exists: name a new file")
    try:
        source = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        create_private(to)
        target = sqlite3.connect(to)
        try:
            source.backup(target)
            # Without these rows every epoch of the copy is new: its next positions were given.
            target.execute("DELETE FROM meta")
            target.commit()
        finally:
            target.close()
            source.close()
    except (OSError, sqlite3.Error) as error:
        raise BrokerError(f"cannot copy {file} to {to}: {error}") from None
    return to.stat().st_size


def _salvage(damaged: Path, fresh: Path) -> dict[str, int]:
    create_private(fresh)
    target = sqlite3.connect(fresh, isolation_level=None)
    try:
        target.execute("PRAGMA auto_vacuum = INCREMENTAL")
        migrate(target, fresh)
        source = sqlite3.connect(damaged)
        try:
            return {
                table: _copy_readable(source, target, table) for table in TABLES if table != "meta"
            }
        finally:
            source.close()
    finally:
        target.close()


def _copy_readable(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> int:
    """Copy rows from the front up to the first unreadable page, then from the back."""
    target.execute("BEGIN")
    # An older version lacks some.
    names = ", ".join(_columns(source, table))
    order = [row[1] for row in target.execute(f"PRAGMA table_info({table})") if row[5]]
    marks = ",".join("?" * len(_columns(source, table)))
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
    select = f"SELECT {names} FROM {table} ORDER BY "  # noqa: S608
    for direction in ("ASC", "DESC"):
        try:
            for row in source.execute(select + ", ".join(f"{each} {direction}" for each in order)):
                target.execute(insert, row)
        except sqlite3.Error:
            continue
        break
    target.execute("COMMIT")
    return _count_rows(target, table)


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    # A file whose schema is damaged has none, and no readable row.
    with contextlib.suppress(sqlite3.Error):
        return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    return []


def _count_rows(connection: sqlite3.Connection, table: str) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
    return count


def _existing_file(folder: Path) -> Path:
    file = folder / FILE_NAME
    if not file.is_file():
        raise BrokerError(f"{folder} has no data file {FILE_NAME}")
    return file


def _free_name(folder: Path) -> Path:
    number = 1
    while (name := folder / f"{FILE_NAME}.damaged-{number}").exists():
        number += 1
    return name
