"""Tests `floorcast import`: a data folder moves into Redis with all positions."""

import asyncio
import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest

from server.brokers import FileKeptValues, FileNoticeStore, FilePresence
from server.building import build_backend
from server.cli import main
from server.core.counters import Counters
from server.core.errors import RequestError
from server.core.limits.shares import Owner
from server.core.log.entries import Position
from server.core.log.idempotency import Claim
from server.core.sessions.notices import Notice, Notices
from server.core.sessions.records import SessionRules
from server.ports import ignore
from server.server import SystemClock
from server.settings import load_settings
from server.tasks import TaskOwner
from tests.kit.redis.servers import RedisServer
from tests.kit.rigs.file_node import file_node

RULES = SessionRules(grace_seconds=10, retention_seconds=60)
BOOK = b'{"bids":[["1","1"]],"asks":[],"checksum":1}'
ROOM, CLOSED = ("acme", "room"), ("acme", "closed")
CHANNEL = "session@4:acme:room"
CLAIM = Claim(f"{CHANNEL}\0ann\0id", b"digest", Owner("acme", "ann"))
LATE = replace(CLAIM, key=f"{CHANNEL}\0ann\0late")
NOTICE = Notice("acme", "ann", "fill", "filled", 1, b'{"n":1}')
_numbers = itertools.count(1)


async def write_data(folder: Path) -> Position:
    """Fill a data folder; returns the head of the room."""
    clock = SystemClock()
    async with file_node(folder, clock) as node:  # type: ignore[arg-type]
        presence = FilePresence(clock, RULES, node.store, resume_seconds=60)
        await presence.start(ignore)
        await presence.join("ann1", "ann", ROOM, {"title": "desk"})
        await presence.join("ann1", "ann", CLOSED)
        await presence.close(CLOSED)
        notices = Notices(keep_seconds=100, max_per_user=10, max_total=100)
        store = FileNoticeStore(clock, node.store, notices, keep_seconds=100)
        await store.start(lambda notice, critical: 0)
        await store.post(NOTICE, critical=True)
        now_ms = int(time.time() * 1000)
        publish = node.broker.publish
        for number in range(20):
            await publish(CHANNEL, b'{"n":%d}' % number, now_ms, in_history=True)
        head = await publish(CHANNEL, b'{"n":20}', now_ms, in_history=True, claim=CLAIM)
        await publish("PRICE:A", b'{"bid":"1"}', now_ms)
        await publish("ORDERBOOK:A", b"{}", now_ms, full_state=lambda: BOOK)
        await presence.stop()
    return head.position


@pytest.mark.redis
def test_import_keeps_positions_ids_sessions_and_notices(
    tmp_path: Path, shared_redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    head = asyncio.run(write_data(tmp_path))
    environ = {
        "FLOORCAST_BROKER__URL": shared_redis.url,
        "FLOORCAST_BROKER__PREFIX": f"import{next(_numbers)}",
    }
    assert main(["import", "--data", str(tmp_path)], environ) == 0
    assert sorted(capsys.readouterr().out.split("\n")[:-1]) == [
        *("channels = 3", "entries = 21", "notices = 1", "sessions = 2"),
    ]
    assert main(["import", "--data", str(tmp_path)], environ) == 0
    assert capsys.readouterr().out == "skipped = 6\n", "a second time changes nothing"

    async def check() -> None:
        counters = Counters()
        settings = load_settings(environ=environ)
        backend = build_backend(settings, SystemClock(), counters, TaskOwner(counters), None)
        broker, presence = backend.broker, backend.presence
        await broker.start(ignore)
        await presence.start(ignore)
        assert await broker.head(CHANNEL) == head
        missed = await broker.since(CHANNEL, Position(head.epoch, 0))
        assert missed is not None
        assert [each.data for each in missed] == [b'{"n":%d}' % n for n in range(21)]
        assert (await broker.publish(CHANNEL, b"{}", 9, claim=CLAIM)).position == head
        book = await broker.latest("ORDERBOOK:A")
        assert book is not None
        assert (book.data, book.position.seq) == (BOOK, 1)
        assert not await broker.is_rolled_back("ORDERBOOK:A")
        room, closed = [await presence.participants(key) for key in (ROOM, CLOSED)]
        assert room is not None
        assert closed is not None
        assert (room.metadata, room.members, room.closed) == ({"title": "desk"}, (), False)
        assert closed.closed
        assert await backend.notices.post(NOTICE, critical=True) == 0, "it is there"
        await presence.stop()
        await broker.stop()

    asyncio.run(check())


def test_import_needs_a_redis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--data", str(tmp_path)], {}) == 2
    assert "needs a Redis" in capsys.readouterr().err


@pytest.mark.redis
def test_round_trip_from_redis_to_a_folder_loses_nothing(
    tmp_path: Path, shared_redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(write_data(tmp_path / "a"))
    environ = {
        "FLOORCAST_BROKER__URL": shared_redis.url,
        "FLOORCAST_BROKER__PREFIX": f"export{next(_numbers)}",
    }
    folder = tmp_path / "b"
    assert main(["import", "--data", str(tmp_path / "a")], environ) == 0

    async def write_more() -> Position:
        counters = Counters()
        settings = load_settings(environ=environ)
        backend = build_backend(settings, SystemClock(), counters, TaskOwner(counters), None)
        broker = backend.broker
        await broker.start(ignore)
        now_ms = int(time.time() * 1000)
        await backend.kept.put("k{}%", {"a": b"1"}, expires_at=2**33)
        receipt = await broker.publish(CHANNEL, b'{"n":21}', now_ms, in_history=True, claim=LATE)
        await broker.publish("TRADES:{%7B}", b"{}", now_ms, in_history=True)
        await broker.publish("ORDERBOOK:A", b'{"change":1}', 2, full_state=lambda: BOOK)
        await broker.stop()
        return receipt.position

    head = asyncio.run(write_more())
    capsys.readouterr()
    assert main(["export", "--data", str(folder)], environ) == 0
    printed = sorted(capsys.readouterr().out.split("\n")[:-1])
    assert printed == [
        *("channels = 4", "entries = 23", "ids = 2", "kept = 1", "notices = 1", "sessions = 2"),
    ]
    assert main(["export", "--data", str(folder)], environ) == 2
    assert "export into a new folder" in capsys.readouterr().err

    async def check() -> None:
        async with file_node(folder, SystemClock()) as node:  # type: ignore[arg-type]
            broker = node.broker
            assert await broker.head(CHANNEL) == head
            entries = await broker.before(CHANNEL, None, 100)
            assert [each.position.seq for each in entries] == list(range(1, 23))
            assert {each.position.epoch for each in entries} == {head.epoch}
            receipt = await broker.publish(CHANNEL, b"{}", 9, in_history=True, claim=LATE)
            assert receipt.position == head, "the same id"
            with pytest.raises(RequestError):
                await broker.find(CHANNEL, replace(LATE, digest=b"other"))
            assert (await broker.head("TRADES:{%7B}")).seq == 1
            book = await broker.latest("ORDERBOOK:A")
            assert book is not None
            assert (book.position.seq, book.data) == (2, BOOK)
            assert not await broker.is_rolled_back("ORDERBOOK:A")
            presence = FilePresence(SystemClock(), RULES, node.store, resume_seconds=60)
            await presence.start(ignore)
            room, closed = [await presence.participants(key) for key in (ROOM, CLOSED)]
            assert room is not None
            assert closed is not None
            assert (room.metadata, room.closed, closed.closed) == ({"title": "desk"}, False, True)
            await presence.stop()
            notices = Notices(keep_seconds=100, max_per_user=10, max_total=100)
            store = FileNoticeStore(SystemClock(), node.store, notices, keep_seconds=100)
            await store.start(lambda notice, critical: 0)
            assert store.pending("acme", "ann") == (NOTICE,)
            kept = FileKeptValues(SystemClock(), node.store)
            assert await kept.items("k{}%") == {"a": b"1"}

    asyncio.run(check())


def test_export_needs_a_redis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--data", str(tmp_path)], {}) == 2
    assert "needs a Redis" in capsys.readouterr().err
    environ = {"FLOORCAST_BROKER__URL": "redis+cluster://localhost"}
    assert main(["export", "--data", str(tmp_path)], environ) == 2
