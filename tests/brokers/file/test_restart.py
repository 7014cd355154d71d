"""What outlives a restart, and what a kill."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from server.brokers import (
    FileConfig,
    FileHandover,
    FileKeptValues,
    FileNoticeStore,
    FilePresence,
    MemoryConfig,
)
from server.core.errors import FloorcastError, RequestError, WriteConflict
from server.core.limits.shares import Owner
from server.core.log.entries import Entry, Position, Receipt
from server.core.log.history import HistoryBounds
from server.core.log.idempotency import Claim
from server.core.recovery.connection_state import ConnectionState, ResumeRequest, SubscriptionState
from server.core.sessions.histories import HistoryRules
from server.core.sessions.notices import Notice, Notices
from server.core.sessions.records import SessionRules, session_channel
from server.ports import ignore
from tests.kit.clock import START, ManualClock
from tests.kit.rigs.file_node import FileNode, file_node, turns

NOW_MS = int(START * 1000)
BOOK = b'{"bids":[["1","1"]],"asks":[]}'


async def publish(node: FileNode, channel: str, count: int = 1) -> list[Receipt]:
    """Publish messages into the history, all at once."""
    return await asyncio.gather(
        *(
            node.broker.publish(channel, b'{"n":%d}' % number, NOW_MS, in_history=True)
            for number in range(count)
        )
    )


async def test_kill_keeps_acknowledged_entries_and_their_epoch(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        receipts = await publish(node, "T@1", 600)
        entries = await node.broker.before("T@1", None, 1000)
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        assert await node.broker.before("T@1", None, 1000) == entries
        assert await node.broker.head("T@1") == receipts[-1].position
        missed = await node.broker.since("T@1", receipts[-3].position)
        assert missed == entries[-2:]
        [following] = await publish(node, "T@1")
        assert following.position == Position(receipts[0].position.epoch, 601)


async def test_kill_keeps_ids_and_their_receipts(tmp_path: Path) -> None:
    claim = Claim("org\0ann\0T\0id", b"digest", Owner("org", "ann"))
    async with file_node(tmp_path / "a") as node:
        first = await node.broker.publish("T", b"{}", 5, in_history=True, claim=claim)
        priced = await node.broker.publish("PRICE:A", b"{}", 5, claim=Claim("other", b"d"))
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        assert await node.broker.publish("T", b"{}", 9, in_history=True, claim=claim) == first
        assert await node.broker.find("PRICE:A", Claim("other", b"d")) == priced
        with pytest.raises(RequestError):
            await node.broker.find("T", Claim(claim.key, b"another"))
        node.clock.advance(121)
        assert await node.broker.find("T", claim) is None


async def test_restart_keeps_merged_states_and_epochs(tmp_path: Path) -> None:
    async with file_node(tmp_path) as node:
        first = await node.broker.publish("PRICE:A", b'{"bid":"1"}', NOW_MS)
        await node.broker.publish("BOOK", b"{}", NOW_MS, full_state=lambda: BOOK)
    async with file_node(tmp_path) as node:
        latest = await node.broker.latest("PRICE:A")
        assert latest == Entry("PRICE:A", first.position, NOW_MS, b'{"bid":"1"}')
        book = await node.broker.latest("BOOK")
        assert book is not None
        assert (book.data, book.kind) == (BOOK, "snapshot")
        assert not await node.broker.is_rolled_back("BOOK")
        assert (await node.broker.publish("PRICE:A", b"{}", 1)).position.seq == 2


async def test_kill_restarts_merged_states_in_a_new_epoch(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        first = await node.broker.publish("PRICE:A", b'{"bid":"1"}', NOW_MS)
        await node.broker.publish("BOOK", b"{}", NOW_MS, full_state=lambda: BOOK)
        await node.broker._write_states()
        await node.store.commit()
        seen = await node.broker.publish("PRICE:A", b'{"bid":"2"}', NOW_MS)
        folder = node.copy_as_killed(tmp_path / "b")
    for _ in range(2):
        # A clean restart in between changes nothing.
        async with file_node(folder) as node:
            latest = await node.broker.latest("PRICE:A")
            assert latest is not None
            assert (latest.data, latest.position.seq) == (b'{"bid":"1"}', first.position.seq)
            assert latest.position.epoch != seen.position.epoch, "another 2 may follow"
            assert await node.broker.since("PRICE:A", seen.position) is None
            assert await node.broker.is_rolled_back("BOOK"), "later changes may be missing"
    async with file_node(folder) as node:
        await node.broker.publish("BOOK", BOOK, 1, kind="snapshot", full_state=lambda: BOOK)
        assert not await node.broker.is_rolled_back("BOOK")


async def test_kept_message_is_delivered_only_once_it_is_written(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        await node.broker.watch("T")
        with node.stopped_disk():
            waiting = asyncio.create_task(publish(node, "T", 3))
            await turns()
            head = await node.broker.head("T")
            assert (head.seq, node.entries, waiting.done()) == (0, [], False)
            folder = node.copy_as_killed(tmp_path / "b")
        await waiting
        assert [each.position.seq for each in node.entries] == [1, 2, 3]
    async with file_node(folder) as node:
        assert (await node.broker.head("T")).seq == 0


async def test_cancelled_publisher_does_not_lose_its_message(tmp_path: Path) -> None:
    async with file_node(tmp_path) as node:
        with node.stopped_disk():
            waiting = asyncio.create_task(publish(node, "T"))
            await turns()
            waiting.cancel()
            await turns()
            other = asyncio.create_task(publish(node, "T"))
            await turns()
        [receipt] = await other
        assert receipt.position.seq == 2
        assert len(await node.broker.before("T", None, 9)) == 2


async def test_waiting_publishers_with_one_id_publish_once(tmp_path: Path) -> None:
    async with file_node(tmp_path) as node:
        calls = [
            node.broker.publish("T", b"{}", 1, in_history=True, claim=Claim("id", b"d"))
            for _ in range(5)
        ]
        assert {each.position.seq for each in await asyncio.gather(*calls)} == {1}


async def test_expected_head_is_compared_once_nothing_is_pending(tmp_path: Path) -> None:
    async with file_node(tmp_path) as node:
        head = await node.broker.head("T")
        with node.stopped_disk():
            first = asyncio.create_task(publish(node, "T"))
            await turns()
            # Refused at once, a publisher of a book would reload the same head and try again.
            second = asyncio.create_task(node.broker.publish("T", b"{}", 1, expected_head=head))
            await turns()
            assert not second.done()
        [receipt] = await first
        with pytest.raises(WriteConflict):
            await second
        third = await node.broker.publish(
            "T", b"{}", 1, in_history=True, expected_head=receipt.position
        )
        assert third.position.seq == 2


async def test_forgotten_channel_stays_forgotten(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        [old] = await publish(node, "T")
        assert await node.broker.forget("T")
        await publish(node, "T")
        await publish(node, "U")
        assert await node.broker.forget("U")
        await node.store.commit()
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        head = await node.broker.head("T")
        assert (head.seq, head.epoch == old.position.epoch) == (1, False)
        assert (await node.broker.head("U")).seq == 0


async def test_log_of_a_deleted_session_is_deleted_at_the_start(tmp_path: Path) -> None:
    kept, gone = session_channel("ö{rg}", "a"), session_channel("ö{rg}", "b")
    async with file_node(tmp_path / "a") as node:
        presence = FilePresence(node.clock, SessionRules(10, 60), node.store, resume_seconds=60)
        await presence.start(ignore)
        await presence.join("ann1", "ann", ("ö{rg}", "a"))
        for channel in (kept, gone, "TRADES:A"):
            await publish(node, channel, 2)
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        seqs = [(await node.broker.head(each)).seq for each in (kept, gone, "TRADES:A")]
        assert seqs == [2, 0, 2]


async def test_channel_forgotten_while_its_state_is_written_stays_forgotten(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        await node.broker.publish("PRICE:A", b"{}", NOW_MS)
        with node.stopped_disk():
            commit = asyncio.create_task(node.store.commit())
            await turns()
            await node.broker._write_states()
            forgotten = asyncio.create_task(node.broker.forget("PRICE:A"))
            await turns()
        await commit
        assert await forgotten
        await node.store.commit()
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        assert await node.broker.latest("PRICE:A") is None


async def test_publish_to_a_stopping_broker_does_not_restart_epochs(tmp_path: Path) -> None:
    async with file_node(tmp_path) as node:
        seen = await node.broker.publish("PRICE:A", b"{}", NOW_MS)
        stopping = asyncio.create_task(node.broker.stop())
        while not stopping.done():
            await asyncio.sleep(0)
            with contextlib.suppress(FloorcastError):
                seen = await node.broker.publish("PRICE:A", b"{}", NOW_MS)
    async with file_node(tmp_path) as node:
        assert await node.broker.head("PRICE:A") == seen.position


async def test_refused_snapshot_does_not_continue_a_lost_book(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        await node.broker.publish("BOOK", b"{}", NOW_MS, full_state=lambda: BOOK)
        await node.broker._write_states()
        await node.store.commit()
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        elsewhere = Position("other", 9)
        with pytest.raises(WriteConflict):
            await node.broker.publish(
                "BOOK", BOOK, 1, kind="snapshot", full_state=lambda: BOOK, expected_head=elsewhere
            )
        assert await node.broker.is_rolled_back("BOOK")


async def test_file_keeps_no_more_than_memory(tmp_path: Path) -> None:
    memory = MemoryConfig(histories=HistoryRules(HistoryBounds(messages=5)))
    async with file_node(tmp_path / "a", memory=memory) as node:
        await publish(node, "T", 20)
        node.broker._retention.trim(120, node.clock)
        await node.store.commit()
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        entries = await node.broker.before("T", None, 100)
        assert [each.position.seq for each in entries] == [16, 17, 18, 19, 20]


async def test_state_of_a_message_with_an_id_is_not_replaced_by_older(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        await node.broker.publish("PRICE:A", b"1", NOW_MS)
        with node.stopped_disk():
            commit = asyncio.create_task(node.store.commit())
            await turns()
            waiting = asyncio.create_task(
                node.broker.publish("PRICE:A", b"2", NOW_MS, claim=Claim("id", b"d"))
            )
            await turns()
            await node.broker._write_states()
        await commit
        await waiting
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        latest = await node.broker.latest("PRICE:A")
        assert latest is not None
        assert latest.data == b"2"


async def test_newest_entry_outlives_its_history(tmp_path: Path) -> None:
    memory = MemoryConfig(histories=HistoryRules(HistoryBounds(total_bytes=10)))
    async with file_node(tmp_path / "a", memory=memory) as node:
        [dropped] = await publish(node, "T")
        await publish(node, "U")
        assert await node.broker.before("T", None, 1) == [], "U has taken its place"
        node.broker._trim()
        await node.store.commit()
        folder = node.copy_as_killed(tmp_path / "b")
    async with file_node(folder) as node:
        assert await node.broker.head("T") == dropped.position


async def test_power_cut_without_sync_restarts_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with file_node(tmp_path / "a", config=FileConfig(tmp_path / "a", sync="os")) as node:
        [receipt] = await publish(node, "T")
        folders = [node.copy_as_killed(tmp_path / name) for name in "bc"]
    async with file_node(folders[0]) as node:
        assert await node.broker.head("T") == receipt.position, "only the process was killed"
    monkeypatch.setattr("server.brokers.file.database._boot_id", lambda: "another")
    async with file_node(folders[1]) as node:
        head = await node.broker.head("T")
        assert (head.seq, head.epoch == receipt.position.epoch) == (1, False)


# --- sessions, notices, resume tickets

RULES = SessionRules(grace_seconds=10, retention_seconds=60, max_sessions=10)
ROOM = ("acme", "room")


async def test_kill_keeps_sessions_with_their_metadata(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        presence = FilePresence(node.clock, RULES, node.store, resume_seconds=60)
        await presence.start(ignore)
        await presence.join("ann1", "ann", ROOM, {"title": "import"})
        await presence.join("ann1", "ann", ("acme", "closed"))
        await presence.close(("acme", "closed"))
        await node.store.commit()
        folder = node.copy_as_killed(tmp_path / "b")
        await presence.stop()
    async with file_node(folder) as node:
        presence = FilePresence(node.clock, RULES, node.store, resume_seconds=60)
        await presence.start(ignore)
        assert presence.session_count == 2
        joined = await presence.join("bob1", "bob", ROOM, {"title": "mine"})
        assert joined.metadata == {"title": "import"}
        assert [each.user_id for each in joined.members] == ["bob"], "nobody else is connected"
        with pytest.raises(FloorcastError, match="closed"):
            await presence.join("bob1", "bob", ("acme", "closed"))
        node.clock.advance(61)
        assert await presence.sweep() == [("acme", "closed")]
        await presence.stop()
    async with file_node(folder) as node:
        presence = FilePresence(node.clock, RULES, node.store, resume_seconds=60)
        await presence.start(ignore)
        assert presence.session_count == 1


async def test_kill_keeps_values_and_deletions(tmp_path: Path) -> None:
    async with file_node(tmp_path / "a") as node:
        kept = FileKeptValues(node.clock, node.store)
        await kept.put("bars", {"A": b"1", "B": b"2"}, expires_at=START + 60)
        await kept.delete("bars", "A")
        await kept.put("bars", {"C": b"3"}, expires_at=START + 5)
        folder = node.copy_as_killed(tmp_path / "b")
    node.clock.advance(10)
    async with file_node(folder, node.clock) as node:
        assert await FileKeptValues(node.clock, node.store).items("bars") == {"B": b"2"}
        node.broker._trim()
        await node.store.commit()
        rows = await node.store.run(
            lambda database: database.connection.execute("SELECT key FROM kept").fetchall()
        )
        assert rows == [("B",)]


def notice_store(node: FileNode) -> FileNoticeStore:
    notices = Notices(keep_seconds=100, max_per_user=10, max_total=100)
    return FileNoticeStore(node.clock, node.store, notices, keep_seconds=100)


async def test_kill_keeps_unacknowledged_notices(tmp_path: Path) -> None:
    one, two, plain = (Notice("acme", "ann", name, "e", 1, b'{"n":1}') for name in "abc")
    clock = ManualClock()
    async with file_node(tmp_path / "a", clock) as node:
        store = notice_store(node)
        await store.start(lambda notice, critical: 1)
        assert [await store.post(each, critical=True) for each in (one, two)] == [1, 1]
        assert await store.post(plain, critical=False) == 1
        store.acknowledge(one)
        await node.store.commit()
        folder = node.copy_as_killed(tmp_path / "b")
    clock.advance(60)
    async with file_node(folder, clock) as node:
        store = notice_store(node)
        await store.start(lambda notice, critical: 1)
        assert store.pending("acme", "ann") == (two,)
        assert await store.post(one, critical=True) == 0, "it was acknowledged"
        assert await asyncio.gather(*(store.post(plain, critical=True) for _ in range(2))) == [1, 0]
        clock.advance(41)
        assert store.pending("acme", "ann") == (plain,), "its time counts from the first post"
        store.sweep()


async def test_stopped_process_leaves_connections_to_the_next(tmp_path: Path) -> None:
    clock = ManualClock()
    request = ResumeRequest("/market", "n.pid", "acme", "ann", "aaaa-7")
    topic = SubscriptionState("PRICE:A", Position("e", 3), 0, needs_snapshot=False, stale=None)
    state = ConnectionState("c1", "acme", "ann", (topic,))
    async with file_node(tmp_path, clock) as node:
        handover = FileHandover(clock, node.store, window_seconds=120)
        await handover.start(lambda _: None)
        await handover.stop(lambda: [(request, state)])
    async with file_node(tmp_path, clock) as node:
        later = FileHandover(clock, node.store, window_seconds=120)
        await later.start(lambda _: None)
        assert later.node != handover.node
        other = ResumeRequest("/market", "n.pid", "acme", "bob", "aaaa-7")
        assert await later.fetch(other) is None
        assert await later.fetch(request) == state
        assert await later.fetch(request) is None, "only once"
        await later.stop(lambda: [(request, state)])
    clock.advance(121)
    async with file_node(tmp_path, clock) as node:
        late = FileHandover(clock, node.store, window_seconds=120)
        await late.start(lambda _: None)
        assert await late.fetch(request) is None
