"""Faults of the disk and of the file: full, stuck, damaged, newer, in use."""

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from server.brokers import BrokerError, FileConfig, FileKeptValues
from server.brokers.file.database import Database
from server.brokers.file.repair import back_up, check_file, repair_file
from server.brokers.file.schema import _MIGRATIONS, ENTRIES, FILE_NAME
from server.core.errors import FloorcastError, LimitError
from server.core.log.entries import Position
from server.core.log.idempotency import Claim
from tests.kit.rigs.file_node import FileNode, file_node, turns

DATA = b'{"text":"' + b"x" * 2000 + b'"}'


async def publish(node: FileNode, channel: str = "T", count: int = 1) -> int:
    """Publish messages one after the other; returns the last seq."""
    for _ in range(count):
        receipt = await node.broker.publish(channel, DATA, 1_800_000_000_000, in_history=True)
    return receipt.position.seq


async def seqs(node: FileNode, channel: str = "T") -> list[int]:
    return [each.position.seq for each in await node.broker.before(channel, None, 10_000)]


# --- the disk


async def test_full_disk_refuses_promptly_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with file_node(tmp_path / "a") as node:
        await publish(node, count=3)
        await node.limit_pages(1)
        results = await asyncio.gather(*(publish(node) for _ in range(50)), return_exceptions=True)
        kept = [each for each in results if isinstance(each, int)]
        refused = [each for each in results if isinstance(each, LimitError)]
        assert len(kept) + len(refused) == 50
        assert refused
        assert {each.code.value for each in refused} == {"server.overloaded"}
        price = await node.broker.publish("PRICE:A", b"{}", 1)
        assert price.position.seq == 1, "what is not kept goes on"
        assert sum("cannot be written" in each.message for each in caplog.records) == 1
        await node.limit_pages(100_000)
        caplog.set_level(logging.INFO)
        last = await publish(node)
        assert last == 4 + len(kept), "no position is skipped"
        assert "can be written again" in caplog.text
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        assert await seqs(node) == list(range(1, last + 1))


async def test_size_limit_is_named_in_the_refusal(tmp_path: Path) -> None:
    config = FileConfig(tmp_path, max_bytes=1024 * 1024)
    async with file_node(tmp_path, config=config) as node:
        with pytest.raises(LimitError, match=r"broker\.max_bytes = 1048576") as refused:
            await publish(node, count=1000)
        assert refused.value.code == "server.overloaded"
        assert (tmp_path / FILE_NAME).stat().st_size <= 1024 * 1024
        await node.broker.forget("T")
        assert await publish(node) == 1, "there is room again"


async def test_stuck_disk_refuses_promptly(tmp_path: Path) -> None:
    config = FileConfig(tmp_path, timeout_seconds=0.05, max_waiting=10)
    async with file_node(tmp_path, config=config) as node:
        with node.stopped_disk():
            with pytest.raises(LimitError, match="may have been kept"):
                await publish(node)
            with pytest.raises(LimitError, match="does not answer"):
                await publish(node)
        await node.store.run(lambda database: None)
        assert await seqs(node) == [1], "it has been kept in the end"
        assert await publish(node) == 2


async def publish_to_book(node: FileNode, levels: list[bytes], level: bytes, name: str) -> None:
    """Publish a change as the book publisher does: applied first, reverted on any failure."""
    levels.append(level)
    try:
        await node.broker.publish(
            "BOOK", level, 1, claim=Claim(name, b"d"), full_state=lambda: b",".join(levels)
        )
    except BaseException:
        levels.remove(level)
        raise


async def test_state_has_a_change_whose_publisher_stopped_waiting(tmp_path: Path) -> None:
    config = FileConfig(tmp_path, timeout_seconds=0.05)
    async with file_node(tmp_path, config=config) as node:
        levels: list[bytes] = []
        await publish_to_book(node, levels, b"a", "1")
        with node.stopped_disk(), pytest.raises(LimitError, match="may have been kept"):
            await publish_to_book(node, levels, b"b", "2")
        await node.store.run(lambda database: None)
        latest = await node.broker.latest("BOOK")
        assert latest is not None
        assert (latest.position.seq, latest.data) == (2, b"a,b")
        with node.stopped_disk():
            cancelled = asyncio.create_task(publish_to_book(node, levels, b"c", "3"))
            await turns()
            cancelled.cancel()
            await turns()
        await node.store.run(lambda database: None)
        latest = await node.broker.latest("BOOK")
        assert latest is not None
        assert (latest.position.seq, latest.data) == (3, b"a,c")


async def test_state_never_has_a_change_before_its_position(tmp_path: Path) -> None:
    async with file_node(tmp_path) as node:
        levels: list[bytes] = []
        await publish_to_book(node, levels, b"a", "1")
        with node.stopped_disk():
            kept = asyncio.create_task(publish_to_book(node, levels, b"b", "2"))
            await turns()
            reading = asyncio.create_task(node.broker.latest("BOOK"))
            await turns()
            assert not reading.done()
        latest = await reading
        assert latest is not None
        assert (latest.position.seq, latest.data) == (2, b"a,b")
        await kept
        await node.limit_pages(1)
        # In one commit with what does not fit.
        beside = asyncio.create_task(publish(node))
        failing = asyncio.create_task(publish_to_book(node, levels, b"c", "3"))
        states: list[tuple[int, bytes]] = []

        async def subscribe() -> None:
            latest = await node.broker.latest("BOOK")
            assert latest is not None
            states.append((latest.position.seq, latest.data))

        while not failing.done():
            await asyncio.gather(*(subscribe() for _ in range(3)))
            await asyncio.sleep(0)
        assert isinstance(failing.exception(), LimitError)
        assert isinstance(beside.exception(), LimitError)
        assert {*states} == {(2, b"a,b")}


async def test_channel_forgotten_on_a_full_disk_stays_forgotten(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        for channel in ("T", "U"):
            await publish(node, channel, 3)
        await node.limit_pages(1)
        with node.stopped_disk():
            waiting = asyncio.create_task(publish(node, "T"))
            await turns()
            forgotten = asyncio.create_task(node.broker.forget("T"))
            await turns()
            assert not forgotten.done()
        with pytest.raises(LimitError):
            await waiting
        assert await forgotten
        assert await node.broker.forget("U")
        # In one commit with what does not fit.
        with pytest.raises(LimitError):
            await asyncio.gather(*(publish(node, "V") for _ in range(50)))
        assert "U" in node.broker._undeleted
        await node.limit_pages(10_000)
        assert await publish(node, "U") == 1
        node.broker._delete([*node.broker._undeleted])
        await node.store.commit()
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        assert await seqs(node, "T") == []
        assert await seqs(node, "U") == [1]


async def test_disk_that_answers_late_finds_a_closed_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = FileConfig(tmp_path, timeout_seconds=0.1)
    async with file_node(tmp_path, config=config) as node:
        stuck = contextlib.ExitStack()
        stuck.enter_context(node.stopped_disk())
        with pytest.raises(LimitError, match="may have been kept"):
            await publish(node)
        waiting = asyncio.create_task(node.store.close(is_complete=True))
        await turns()
        node.broker._delete(["T"])
        stuck.close()
        await waiting
    assert "AssertionError" not in caplog.text
    for work in (node.store.run, node.store.read):
        with pytest.raises(FloorcastError, match="the data file is closed"):
            await work(lambda database: None)
    with pytest.raises(FloorcastError, match="the data file is closed"):
        await node.store.commit()


async def test_read_on_a_stuck_disk_is_refused_in_time(tmp_path: Path) -> None:
    config = FileConfig(tmp_path, timeout_seconds=0.05)
    async with file_node(tmp_path, config=config) as node:
        kept = FileKeptValues(node.clock, node.store)
        with node.stopped_disk(), pytest.raises(LimitError, match="the disk does not answer"):
            await kept.get("kind", "key")
        assert await kept.get("kind", "key") is None


async def test_stuck_disk_does_not_keep_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = FileConfig(tmp_path, timeout_seconds=0.05)
    claim = Claim("id", b"digest")
    async with file_node(tmp_path, config=config) as node:
        stuck = contextlib.ExitStack()
        stuck.enter_context(node.stopped_disk())
        with pytest.raises(LimitError, match="may have been kept"):
            await node.broker.publish("T", b"{}", 1, in_history=True, claim=claim)
        with pytest.raises(LimitError, match="does not answer"):
            await node.broker.find("T", claim)
        assert not await node.broker.forget("T")
    assert "not closed cleanly" in caplog.text
    stuck.close()


async def test_queue_for_the_disk_is_bounded(tmp_path: Path) -> None:
    config = FileConfig(tmp_path, max_waiting=10)
    async with file_node(tmp_path, config=config) as node:
        with node.stopped_disk():
            waiting = [asyncio.create_task(publish(node)) for _ in range(20)]
            await turns()
            refused = [each for each in waiting if each.done()]
            assert refused
            for each in refused:
                with pytest.raises(LimitError, match="too many messages wait"):
                    each.result()
        kept = await asyncio.gather(*(each for each in waiting if each not in refused))
        assert kept == list(range(1, 20 - len(refused) + 1))


# --- the folder


async def test_folder_belongs_to_one_process(tmp_path: Path) -> None:
    async with file_node(tmp_path):
        with pytest.raises(BrokerError, match=r"in use by process \d+: .* several need a Redis"):
            async with file_node(tmp_path):
                pass
    async with file_node(tmp_path) as node:
        assert await publish(node) == 1, "the lock ends with its process"


async def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    async with file_node(folder) as node:
        await publish(node)
        back_up(folder, folder / "copy")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    repair_file(folder)
    modes["repaired"] = stat.S_IMODE((folder / FILE_NAME).stat().st_mode)
    assert FILE_NAME + "-wal" in modes
    assert {*modes.values()} == {0o600}


async def test_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match=r"cannot create .*file/data"):
        async with file_node(tmp_path / "file" / "data"):
            pass
    (tmp_path / "floorcast.lock").mkdir()
    with pytest.raises(BrokerError, match=r"cannot write to .*: .*must belong to the user"):
        async with file_node(tmp_path):
            pass


# --- the file


async def test_newer_file_is_refused(tmp_path: Path) -> None:
    async with file_node(tmp_path) as node:
        await publish(node)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(BrokerError, match=r"version 99 .* run the newer one"):
        async with file_node(tmp_path):
            pass


async def test_older_file_is_checked_and_brought_up_to_date(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    connection.executescript(_MIGRATIONS[0] + "PRAGMA user_version = 1;")
    row = ("T", 7, "e1", 1, "update", b"{}", "org", "ann")
    connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO meta VALUES ('clean', '1')")
    connection.close()
    assert check_file(tmp_path)["entries"] == 1
    async with file_node(tmp_path) as node:
        assert await node.broker.head("T") == Position("e1", 7)
        await FileKeptValues(node.clock, node.store).put("k", {"a": b""}, expires_at=2**33)
    assert check_file(tmp_path)["kept"] == 1


@pytest.mark.parametrize("damage", [b"no database at all", b"\xff" * 100])
async def test_damaged_file_is_refused_with_a_remedy(tmp_path: Path, damage: bytes) -> None:
    async with file_node(tmp_path) as node:
        await publish(node, count=20)
    file = tmp_path / FILE_NAME
    content = bytearray(file.read_bytes())
    start = 0 if damage.startswith(b"no") else len(content) // 2 // 4096 * 4096
    content[start : start + len(damage)] = damage
    file.write_bytes(content)
    with pytest.raises(BrokerError, match=r"is damaged \(.*floorcast check --data .* --repair"):
        async with file_node(tmp_path):
            pass
    with pytest.raises(BrokerError, match="damaged"):
        check_file(tmp_path)


async def test_repair_keeps_what_is_readable(tmp_path: Path) -> None:
    async with file_node(tmp_path) as node:
        for channel in ("A", "B", "C"):
            await publish(node, channel, 100)
        epoch = (await node.broker.head("A")).epoch
    file = tmp_path / FILE_NAME
    content = bytearray(file.read_bytes())
    page = content.find(b"B", len(content) // 2) // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    file.write_bytes(content)
    rows, old = repair_file(tmp_path)
    assert 0 < rows["entries"] < 300
    assert old.read_bytes() == content, "the damaged file stays"
    assert check_file(tmp_path) == rows
    async with file_node(tmp_path) as node:
        kept = 0
        for channel in ("A", "B", "C"):
            found = await seqs(node, channel)
            kept += len(found)
            if found:
                assert found == list(range(found[0], found[-1] + 1)), "a history has no gap"
            head = await node.broker.head(channel)
            assert head.epoch != epoch, "the newest entries may be missing"
        assert kept


async def test_backup_of_a_running_broker_is_complete(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        await publish(node, count=50)
        (tmp_path / "b").mkdir()
        back_up(tmp_path / "a", tmp_path / "b" / FILE_NAME)
        assert await publish(node) == 51
        with pytest.raises(BrokerError, match="exists"):
            back_up(tmp_path / "a", tmp_path / "b" / FILE_NAME)
        epoch = (await node.broker.head("T")).epoch
    async with file_node(tmp_path / "b") as node:
        assert await seqs(node) == list(range(1, 51))
        assert (await node.broker.head("T")).epoch != epoch, "51 was given to another message"


# All bytes, or some with those where a page or its header ends. A busy disk takes minutes for all.
ALL_BYTES = pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(300)])


@pytest.mark.parametrize("step", [ALL_BYTES, 401])
def test_truncated_wal_keeps_every_complete_commit(tmp_path: Path, step: int) -> None:
    written, copy = tmp_path / "written", tmp_path / "copy"
    written.mkdir()
    copy.mkdir()
    database = Database(written, fsync=False, max_bytes=2**30)
    database.open()
    wal, sizes = written / f"{FILE_NAME}-wal", []
    for seq in range(1, 4):
        database.write({ENTRIES: [("T", seq, "e", 1, "update", b"{}", "", "")]})
        sizes.append(wal.stat().st_size)
    content = wal.read_bytes()
    ends = {32 + 4120 * number + offset for number in range(20) for offset in (-1, 0, 1, 24)}
    for size in range(sizes[0], len(content) + 1):
        if size % step and size not in ends:
            continue
        shutil.copy(written / FILE_NAME, copy)
        (copy / wal.name).write_bytes(content[:size])
        connection = sqlite3.connect(copy / FILE_NAME)
        # What is read does not depend on it, and it saves most of the time.
        connection.execute("PRAGMA synchronous = OFF")
        found = [row[0] for row in connection.execute("SELECT seq FROM entries ORDER BY seq")]
        assert connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        connection.close()
        (copy / wal.name).unlink(missing_ok=True)
        assert found == list(range(1, sum(end <= size for end in sizes) + 1))
    database.abandon()
