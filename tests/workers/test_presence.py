"""Sessions over several workers, one of which is killed or stands still: there are no ghosts."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from tests.kit.clients.session_client import SessionClient
from tests.kit.redis.servers import redis_server
from tests.kit.server.workers import Workers, workers

LEASE_SECONDS = 2.0
# For so much longer than it takes until others have noticed; who has the time takes more.
STOPPED_SECONDS = float(os.environ.get("FLOORCAST_FAULT_SECONDS", "0"))
# A lease, the time until somebody looks, and a busy machine.
EXPIRY_SECONDS = 3 * LEASE_SECONDS + 2
# That all of them are at one of two workers is not to be feared.
MANY = 12


@pytest.fixture
def floor() -> Iterator[Workers]:
    """Two workers whose members are given up soon."""
    with redis_server() as redis:
        environ = {
            "FLOORCAST_BROKER__URL": redis.url,
            "FLOORCAST_BROKER__LEASE_SECONDS": str(LEASE_SECONDS),
            "FLOORCAST_SESSION__GRACE_SECONDS": "0.2",
            "FLOORCAST_SERVER__DRAIN_SECONDS": "0.2",
        }
        with workers(2, environ=environ) as floor:
            yield floor


async def join_members(floor: Workers) -> dict[str, SessionClient]:
    """Members of one session, all of whom know of each other."""
    members = {f"u{n}": await SessionClient.connect(floor, f"u{n}", "room") for n in range(MANY)}
    for user, member in members.items():
        await until_participants({user: member}, set(members))
        await member.pending_events()
    return members


async def until_participants(members: dict[str, SessionClient], users: set[str]) -> None:
    """Wait until everybody is told that these are there, and nobody else."""
    async with asyncio.timeout(EXPIRY_SECONDS):
        for member in members.values():
            while True:
                answer = await member.call("participants", session_id="room")
                assert answer["participant_count"] == len(answer["participants"])
                if {each["user_id"] for each in answer["participants"]} == users:
                    break
                await asyncio.sleep(0.02)


async def next_user_ids(member: SessionClient, event: str, count: int) -> list[str]:
    """So many users of whom a member hears this; the numbers of those who are there fit."""
    bodies = [await member.next(event) for _ in range(count)]
    step = 1 if event == "user_joined" else -1
    counts = [body["participant_count"] for body in bodies]
    assert counts == list(range(counts[0], counts[0] + step * count, step))
    return [body["user_id"] for body in bodies]


async def members_on(
    floor: Workers, members: dict[str, SessionClient], pid: int
) -> dict[str, SessionClient]:
    """Those who are at this worker, which stands still: they get no answer."""

    async def is_there(member: SessionClient) -> bool:
        try:
            async with asyncio.timeout(0.5):
                await member.call("participants", session_id="room")
        except TimeoutError:
            return True
        return False

    assert pid in floor.pids()
    there = await asyncio.gather(*map(is_there, members.values()))
    return {user: each for (user, each), its in zip(members.items(), there, strict=True) if its}


async def next_late_reply(member: SessionClient) -> None:
    """What was asked of the worker while it stood still."""
    async with asyncio.timeout(EXPIRY_SECONDS):
        while not (text := await member.client.text()).startswith("43/"):
            member.take_packet(text)


async def test_the_members_of_a_worker_that_was_killed_leave_within_the_lease(
    floor: Workers,
) -> None:
    members = await join_members(floor)
    os.kill(floor.pids().pop(), signal.SIGKILL)
    floor.until_logged("a worker has died")
    await asyncio.sleep(0.05)
    lost = {user: each for user, each in members.items() if each.client.reader.at_eof()}
    rest = {user: each for user, each in members.items() if user not in lost}
    assert lost
    assert rest
    await until_participants(rest, set(rest))
    for member in rest.values():
        users = await next_user_ids(member, "user_left", len(lost))
        assert sorted(users) == sorted(lost)
        assert await member.pending_events() == []
    [first, *_] = rest.values()
    newcomer = await SessionClient.connect(floor, "new", "room")
    assert (await next_user_ids(first, "user_joined", 1)) == ["new"]
    assert (await newcomer.call("participants", session_id="room"))["participant_count"] == (
        len(rest) + 1
    )
    cut(newcomer, *members.values())


async def test_the_members_of_a_worker_that_stood_still_leave_and_come_back_with_it(
    floor: Workers,
) -> None:
    members = await join_members(floor)
    pid = floor.pids().pop()
    os.kill(pid, signal.SIGSTOP)
    try:
        stopped = await members_on(floor, members, pid)
        rest = {user: each for user, each in members.items() if user not in stopped}
        assert stopped
        assert rest
        await until_participants(rest, set(rest))
        for member in rest.values():
            users = await next_user_ids(member, "user_left", len(stopped))
            assert sorted(users) == sorted(stopped)
        await asyncio.sleep(STOPPED_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    for member in stopped.values():
        await next_late_reply(member)
    await until_participants(members, set(members))
    for member in rest.values():
        assert sorted(await next_user_ids(member, "user_joined", len(stopped))) == sorted(stopped)
    [sender, *_] = rest.values()
    sent = await sender.call("send", session_id="room", data={"n": 1})
    assert sent["ok"]
    for member in members.values():
        assert (await member.next("message"))["id"] == sent["id"]
        answer = await member.call("participants", session_id="room")
        assert answer["participant_count"] == MANY
    cut(*members.values())


def cut(*members: SessionClient) -> None:
    for each in members:
        each.client.cut()
