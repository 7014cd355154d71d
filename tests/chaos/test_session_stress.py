"""Stress sessions with random members over real sockets."""

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
from tests.chaos.member_log import SessionLog
from tests.chaos.session_device import Device
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
    "session.history.messages": 100_000,
    "session.history.seconds": 0,
    "market.idempotency_seconds": RETENTION_SECONDS,
    # The clock jumps here, and clients do not answer pings meanwhile.
    "ping.interval_seconds": 1e6,
}


@pytest.mark.behaviour("D32", "D42", "D45", "E10", "E11")
@pytest.mark.timeout(120 + 8 * SECONDS)
async def test_random_members_miss_nothing_and_leave_nothing() -> None:
    async with running(SETTINGS, clock=RunningClock()) as node:
        if not SECONDS:
            counts = await run(node, sessions=20, rounds=3)
            print(dict(counts))
            return
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # The first run fills caches and memory pools; the second repeats the same actions.
        first = await run(node, sessions=200, seconds=SECONDS)
        before = rss_bytes()
        counts = await run(node, sessions=200, rounds=first["rounds"])
        after = rss_bytes()
        print(dict(counts), f"RSS {before / 2**20:.1f} -> {after / 2**20:.1f} MiB")
        assert after <= before * 1.05


async def run(
    node: RunningServer, *, sessions: int, rounds: int = 0, seconds: float = 0
) -> Counter[str]:
    """Run random actions in rounds, and check all logs after each round."""
    logs = [SessionLog(f"room-{number}") for number in range(sessions)]
    counts: Counter[str] = Counter()
    devices = [
        Device(node, [logs[number], logs[number - 1]], f"u{number}.{user}", device_number, counts)
        for number in range(sessions)
        for user in range(USERS)
        for device_number in range(2 if user < 3 else 1)
    ]
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + seconds
    while counts["rounds"] < rounds or loop.time() < ends_at:
        counts["rounds"] += 1
        await run_all(device.act for device in devices)
        await check_all(node, logs, devices)
    await run_all(device.leave for device in devices)
    await check_empty(node)
    for log in logs:
        log.check_unique()
    counts["messages acknowledged up to"] = sum(log.acknowledged_seq for log in logs)
    return counts


async def run_all(actions: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Run all actions, 100 at a time, so that none waits for long."""
    waiting = iter(actions)

    async def work() -> None:
        for action in waiting:
            await action()

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(work(), name=f"worker-{number}")


async def check_all(node: RunningServer, logs: list[SessionLog], devices: list[Device]) -> None:
    """Expire the members that were cut, and check that server and logs agree."""
    present = [device for device in devices if device.is_connected]
    memberships = sum(len(device.memberships) for device in present)
    sockets = node.server.sockets
    await until_true(node, lambda: sockets.connection_count == len(present))
    await until_true(node, lambda: len(node.server.clients.context.clients()) == len(present))
    # The last messages have been written to every member.
    await until_true(node, lambda: not node.server.delivery.hub._flusher.dirty)
    assert node.residue()["memberships"] == memberships
    node.pass_time(GRACE_SECONDS + 1)
    await node.server.sessions.service.sweep()
    await run_all(device.catch_up for device in present)
    for log in logs:
        expected = Counter(device.user for device in present if log.id in device.memberships)
        record = node.sessions.get("default", log.id)
        members = () if record is None else record.presence.members()
        assert {each.user_id: each.connections for each in members} == expected


async def check_empty(node: RunningServer) -> None:
    """Expire everything, and check that the server holds nothing."""
    await until_true(node, lambda: not node.server.clients.context.clients())
    for seconds in (GRACE_SECONDS + 1, RETENTION_SECONDS + 1):
        node.pass_time(seconds)
        await node.server.sessions.service.sweep()
    await until_true(node, lambda: not any(node.residue().values()))
    sessions, broker = node.server.sessions.service, node.server.backend.broker
    assert not any(node.sessions.stats().values())
    assert isinstance(broker, MemoryBroker)
    # The broker drops expired ids on the next lookup.
    await broker.find("", Claim("", b""))
    for owner in (
        sessions,
        sessions.memberships,
        node.sessions,
        sessions._node_subscriptions,
        broker,
    ):
        assert not any(collections_of(owner).values()), collections_of(owner)
    assert not node.server.delivery.hub._opening
    assert not node.server.delivery.hub._flusher.dirty


def collections_of(owner: object) -> dict[str, object]:
    """The collections that are attributes of an object."""
    return {
        name: part
        for name, part in vars(owner).items()
        if hasattr(part, "__len__") and not isinstance(part, str)
    }


async def until_true(node: RunningServer, condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail with what the server still holds."""
    try:
        await until(condition)
    except TimeoutError:
        raise AssertionError(f"the condition never held: {node.residue()}") from None


def rss_bytes() -> int:
    """The resident memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
