"""Sessions with many members who come, talk, go and are cut off at random, over real sockets."""

import asyncio
import gc
import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from server.brokers.memory.broker import MemoryBroker
from server.core.log.idempotency import Claim
from tests.chaos.session_device import Device
from tests.chaos.session_ledger import SessionLog
from tests.kit.clock import RunningClock
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer, running

SECONDS = float(os.environ.get("FLOORCAST_STRESS_SECONDS", "0"))
USERS = 10
GRACE_SECONDS = 10
RETENTION_SECONDS = 3600
SETTINGS = {
    "limits.connections": 0,
    "limits.connections_per_ip": 0,
    "limits.connects_per_second": 0,
    "limits.connects_per_second_per_ip": 0,
    "limits.events_per_second": 0,
    "session.per_user": 0,
    "session.grace_seconds": GRACE_SECONDS,
    "session.retention_seconds": RETENTION_SECONDS,
    "history.messages": 100_000,
    "history.seconds": 0,
    "market.idempotency_seconds": RETENTION_SECONDS,
    # Time leaps here, and nobody reads meanwhile.
    "ping.interval_seconds": 1e6,
}


@pytest.mark.behaviour("D32", "D42", "D45", "E10", "E11")
@pytest.mark.timeout(120 + 8 * SECONDS)
async def test_members_who_come_go_and_are_cut_at_random_miss_nothing_and_leave_nothing() -> None:
    async with running(SETTINGS, clock=RunningClock()) as floor:
        if not SECONDS:
            done = await run(floor, sessions=20, rounds=3)
            print(dict(done))
            return
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # The first fills caches and pools of memory; the second does all of it once more.
        first = await run(floor, sessions=200, seconds=SECONDS)
        before = rss_bytes()
        done = await run(floor, sessions=200, rounds=first["rounds"])
        after = rss_bytes()
        print(dict(done), f"RSS {before / 2**20:.1f} -> {after / 2**20:.1f} MiB")
        assert after <= before * 1.05


async def run(
    node: RunningServer, *, sessions: int, rounds: int = 0, seconds: float = 0
) -> Counter[str]:
    """Let them do as they like in rounds, with a look at what has come of it after each."""
    rooms = [SessionLog(f"room-{number}") for number in range(sessions)]
    done: Counter[str] = Counter()
    seats = [
        Device(node, [rooms[number], rooms[number - 1]], f"u{number}.{user}", device, done)
        for number in range(sessions)
        for user in range(USERS)
        for device in range(2 if user < 3 else 1)
    ]
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + seconds
    while done["rounds"] < rounds or loop.time() < ends_at:
        done["rounds"] += 1
        await run_all(seat.act for seat in seats)
        await check_all(node, rooms, seats)
    await run_all(seat.leave for seat in seats)
    await check_empty(node)
    for room in rooms:
        room.check_unique()
    done["messages acknowledged up to"] = sum(room.acknowledged for room in rooms)
    return done


async def run_all(actions: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Many at once, but not so many that one waits for long."""
    waiting = iter(actions)

    async def work() -> None:
        for action in waiting:
            await action()

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(work(), name=f"worker-{number}")


async def check_all(node: RunningServer, sessions: list[SessionLog], devices: list[Device]) -> None:
    """Nobody does anything, and who was cut off is given up: now all accounts agree."""
    present = [seat for seat in devices if seat.is_connected]
    memberships = sum(len(seat.memberships) for seat in present)
    sockets = node.server.sockets
    await until_true(node, lambda: sockets.connection_count == len(present))
    await until_true(node, lambda: len(node.server.context.clients()) == len(present))
    # What was sent with the last breath has been written to everybody.
    await until_true(node, lambda: not node.server.hub._flusher.dirty)
    assert node.residue()["memberships"] == memberships
    node.pass_time(GRACE_SECONDS + 1)
    await node.server.sessions.sweep()
    await run_all(seat.catch_up for seat in present)
    for room in sessions:
        expected = Counter(seat.user for seat in present if room.id in seat.memberships)
        record = node.sessions.get("default", room.id)
        members = () if record is None else record.presence.members()
        assert {each.user_id: each.connections for each in members} == expected


async def check_empty(node: RunningServer) -> None:
    """All have left, and their times have passed."""
    await until_true(node, lambda: not node.server.context.clients())
    for seconds in (GRACE_SECONDS + 1, RETENTION_SECONDS + 1):
        node.pass_time(seconds)
        await node.server.sessions.sweep()
    await until_true(node, lambda: not any(node.residue().values()))
    sessions, broker = node.server.sessions, node.server.broker
    assert not any(node.sessions.stats().values())
    assert isinstance(broker, MemoryBroker)
    # Ids are let go when the next is looked for.
    await broker.find("", Claim("", b""))
    for owner in (
        sessions,
        sessions.memberships,
        node.sessions,
        sessions._node_subscriptions,
        broker,
    ):
        assert not any(collections_of(owner).values()), collections_of(owner)
    assert not node.server.hub._opening
    assert not node.server.hub._flusher.dirty


def collections_of(owner: object) -> dict[str, object]:
    """What an object keeps in collections of its own."""
    return {
        name: part
        for name, part in vars(owner).items()
        if hasattr(part, "__len__") and not isinstance(part, str)
    }


async def until_true(node: RunningServer, condition: Callable[[], bool]) -> None:
    """Wait for what the server has still to notice."""
    try:
        await until(condition)
    except TimeoutError:
        raise AssertionError(f"it never was so: {node.residue()}") from None


def rss_bytes() -> int:
    """The memory of this process that is in use."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
