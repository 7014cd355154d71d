"""Tests presence over several workers, one of which is killed or stopped."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from tests.kit.clients.session_client import SessionClient
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import redis_server
from tests.kit.server.workers import Workers, workers

LEASE_SECONDS = 2.0
# Added to the time until other workers notice; longer in slow test runs.
STOPPED_SECONDS = float(os.environ.get("FLOORCAST_FAULT_SECONDS", "0"))
# So many that both workers practically always have members.
MANY = 12


@pytest.fixture
def cluster() -> Iterator[Workers]:
    """Two workers with a short lease and grace period."""
    with redis_server() as redis:
        environ = {
            "FLOORCAST_BROKER__URL": redis.url,
            "FLOORCAST_BROKER__LEASE_SECONDS": str(LEASE_SECONDS),
            "FLOORCAST_SESSION__GRACE_SECONDS": "0.2",
            "FLOORCAST_SERVER__DRAIN_SECONDS": "0.2",
        }
        with workers(2, environ=environ) as cluster:
            yield cluster


async def join_members(cluster: Workers) -> dict[str, SessionClient]:
    """Join members to one session; wait until each sees all others."""
    members = {f"u{n}": await SessionClient.connect(cluster, f"u{n}", "room") for n in range(MANY)}
    for user, member in members.items():
        await until_participants({user: member}, set(members))
        await member.pending_events()
    return members


async def until_participants(members: dict[str, SessionClient], users: set[str]) -> None:
    """Wait until every member sees exactly these participants."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        for member in members.values():
            while True:
                reply = await member.call("participants", session_id="room")
                assert reply["participant_count"] == len(reply["participants"])
                if {each["user_id"] for each in reply["participants"]} == users:
                    break
                await asyncio.sleep(0.02)


async def next_user_ids(member: SessionClient, event: str, count: int) -> list[str]:
    """The user ids of the next events of a member; checks their participant counts."""
    bodies = [await member.next(event) for _ in range(count)]
    step = 1 if event == "user_joined" else -1
    counts = [body["participant_count"] for body in bodies]
    assert counts == list(range(counts[0], counts[0] + step * count, step))
    return [body["user_id"] for body in bodies]


def split(
    cluster: Workers, members: dict[str, SessionClient], pid: int
) -> tuple[dict[str, SessionClient], dict[str, SessionClient]]:
    """The members on this worker, and the others; some of each."""
    ports = cluster.client_ports(pid)
    on_worker = {user: each for user, each in members.items() if each.client.port in ports}
    others = {user: each for user, each in members.items() if user not in on_worker}
    assert on_worker
    assert others
    return on_worker, others


async def test_members_of_a_killed_worker_leave_within_the_lease(
    cluster: Workers,
) -> None:
    members = await join_members(cluster)
    victim = cluster.pids().pop()
    lost, rest = split(cluster, members, victim)
    os.kill(victim, signal.SIGKILL)
    await until_participants(rest, set(rest))
    for member in rest.values():
        users = await next_user_ids(member, "user_left", len(lost))
        assert sorted(users) == sorted(lost)
        assert await member.pending_events() == []
    [first, *_] = rest.values()
    newcomer = await SessionClient.connect(cluster, "new", "room")
    assert (await next_user_ids(first, "user_joined", 1)) == ["new"]
    assert (await newcomer.call("participants", session_id="room"))["participant_count"] == (
        len(rest) + 1
    )
    cut(newcomer, *members.values())


async def test_members_of_a_stopped_worker_leave_and_rejoin(
    cluster: Workers,
) -> None:
    members = await join_members(cluster)
    pid = cluster.pids().pop()
    stopped, rest = split(cluster, members, pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        await until_participants(rest, set(rest))
        for member in rest.values():
            users = await next_user_ids(member, "user_left", len(stopped))
            assert sorted(users) == sorted(stopped)
        await asyncio.sleep(STOPPED_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    await until_participants(members, set(members))
    for member in rest.values():
        assert sorted(await next_user_ids(member, "user_joined", len(stopped))) == sorted(stopped)
    [sender, *_] = rest.values()
    sent = await sender.call("send", session_id="room", data={"n": 1})
    assert sent["ok"]
    for member in members.values():
        assert (await member.next("message"))["id"] == sent["id"]
        reply = await member.call("participants", session_id="room")
        assert reply["participant_count"] == MANY
    cut(*members.values())


def cut(*members: SessionClient) -> None:
    for each in members:
        each.client.cut()
