"""What every assembly does, be it alone in its process or one of many over Redis."""

from collections.abc import Awaitable

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEventKind
from server.core.sessions.presence import Member
from tests.kit.clock import START
from tests.kit.rigs.presence_cluster import ROOM, PresenceCluster, PresenceNode

NOW_MS = int(START * 1000)


async def error_code(call: Awaitable[object]) -> ErrorCode:
    with pytest.raises(FloorcastError) as refused:
        await call
    return refused.value.code


async def test_the_first_to_join_makes_it_and_users_are_counted_once(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as hall:
        about: dict[str, object] = {"title": "import", "steps": [1, {"of": 3}]}
        first = await hall.presence.join("ann1", "ann", ROOM, about)
        assert (first.members, first.metadata) == ((Member("ann", 1, NOW_MS),), about)
        quarter.clock.advance(5)
        second = await hall.presence.join("bob1", "bob", ROOM, {"title": "mine"})
        assert second.metadata == about, "it stays what the first one said"
        third = await hall.presence.join("ann2", "ann", ROOM)
        assert third.members == (Member("ann", 2, NOW_MS), Member("bob", 1, NOW_MS + 5000))
        assert first.revision < second.revision == third.revision
        assert await hall.presence.participants(ROOM) == third
        await quarter.settle()
        assert hall.event_summaries() == [("joined", "ann", 1), ("joined", "bob", 2)]
        assert [each.revision for each in hall.events[:2]] == [first.revision, second.revision]
        assert [each.ts_ms for each in hall.events[:2]] == [NOW_MS, NOW_MS + 5000]
        assert {each.key for each in hall.events} == {ROOM}


async def test_the_same_said_twice_is_said_once(quarter: PresenceCluster) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1", "ann1", "bob1")
        assert await hall.participants() == {"ann": 1, "bob": 1}
        for _ in range(2):
            await hall.presence.leave("ann1", ROOM)
            hall.presence.remove("nobody1", ROOM, lost=True)
            hall.presence.remove("ann1", ("acme", "nowhere"), lost=False)
        await quarter.settle()
        assert hall.event_summaries() == [
            ("joined", "ann", 1),
            ("joined", "bob", 2),
            ("left", "ann", 1),
        ]
        assert await hall.participants() == {"bob": 1}


async def test_only_the_last_connection_of_a_user_leaves(quarter: PresenceCluster) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1", "bob1", "bob2")
        await hall.presence.leave("bob1", ROOM)
        hall.presence.remove("bob2", ROOM, lost=False)
        await quarter.settle()
        assert hall.event_summaries()[2:] == [("left", "bob", 1)]


async def test_who_is_cut_off_is_given_up_after_the_grace_time_and_once(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1", "bob1", "bob2")
        hall.disconnect("bob1")
        hall.disconnect("bob2")
        await quarter.pass_time(9.0)
        assert await hall.participants() == {"ann": 1, "bob": 0}
        await quarter.pass_time(2.0)
        await quarter.pass_time(20.0)
        assert hall.event_summaries()[2:] == [("left", "bob", 1)]


async def test_who_is_back_within_the_grace_time_was_never_gone(quarter: PresenceCluster) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1", "bob1", "cid1")
        hall.disconnect("bob1")
        hall.disconnect("cid1")
        await quarter.pass_time(9.0)
        await hall.join("bob2")
        assert hall.presence.can_rejoin("cid", ROOM)
        hall.presence.rejoin("cid1", "cid", ROOM)
        await quarter.pass_time(20.0)
        assert hall.event_summaries()[3:] == []
        assert await hall.participants() == {"ann": 1, "bob": 1, "cid": 1}


async def test_what_is_asked_of_one_connection_comes_to_be_in_its_order(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1", "bob1")
        for _ in range(5):
            hall.disconnect("bob1")
            hall.presence.rejoin("bob1", "bob", ROOM)
        hall.disconnect("ann1")
        await quarter.pass_time(20.0)
        assert hall.event_summaries()[2:] == [("left", "ann", 1)]


async def test_without_a_grace_time_whoever_is_cut_off_leaves(quarter: PresenceCluster) -> None:
    async with quarter.node(grace_seconds=0.0) as hall:
        await hall.join("ann1", "bob1")
        hall.disconnect("bob1")
        await quarter.settle()
        assert hall.event_summaries()[2:] == [("left", "bob", 1)]


async def test_a_user_is_sent_away_with_every_connection(quarter: PresenceCluster) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1", "bob1", "bob2", "cid1")
        assert await hall.presence.kick(ROOM, "bob") == 2
        hall.disconnect("cid1")
        await quarter.settle()
        assert await hall.presence.kick(ROOM, "cid") == 0
        assert await error_code(hall.presence.kick(ROOM, "bob")) is ErrorCode.SESSION_NOT_JOINED
        nowhere = ("acme", "nowhere")
        assert await error_code(hall.presence.kick(nowhere, "bob")) is ErrorCode.SESSION_NOT_JOINED
        await hall.join("bob1")
        await quarter.pass_time(20.0)
        assert hall.event_summaries()[3:] == [
            ("kicked", "bob", 2),
            ("kicked", "cid", 1),
            ("barred", "bob", 1),
            ("joined", "bob", 2),
        ]
        assert await hall.participants() == {"ann": 1, "bob": 1}


async def test_a_closed_session_is_out_of_reach_until_its_id_is_free_again(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1", "bob1", "bob2")
        hall.disconnect("ann1")
        await quarter.settle()
        assert await hall.presence.close(ROOM) == 2
        for call in (
            hall.presence.join("ann1", "ann", ROOM),
            hall.presence.kick(ROOM, "ann"),
            hall.presence.close(ROOM),
        ):
            assert await error_code(call) is ErrorCode.SESSION_CLOSED
        gathering = await hall.presence.participants(ROOM)
        assert gathering is not None
        assert (gathering.closed, gathering.members) == (True, ())
        await quarter.pass_time(20.0)
        assert hall.event_summaries()[2:] == [("closed", "", 0)]
        assert await events_after(quarter, hall, 62.0) == {ROOM}
        assert [each.key for each in hall.events if each.kind == "over"] == [ROOM]
        assert await hall.presence.participants(ROOM) is None
        await hall.join("ann1")
        assert await hall.participants() == {"ann": 1}


async def events_after(
    quarter: PresenceCluster, hall: PresenceNode, seconds: float
) -> set[tuple[str, str]]:
    """Let time pass; the sessions whose logs are to be let go, or that are gone with theirs."""
    quarter.clock.advance(seconds)
    over = set(await hall.presence.sweep())
    await hall.wait_idle()
    return over or ({ROOM} if await hall.presence.participants(ROOM) is None else set())


async def test_an_empty_session_stays_for_its_time_and_is_then_made_anew(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as hall:
        await hall.presence.join("ann1", "ann", ROOM, {"first": True})
        await hall.presence.leave("ann1", ROOM)
        assert await events_after(quarter, hall, 59.0) == set()
        assert (await hall.presence.join("bob1", "bob", ROOM)).metadata == {"first": True}
        assert await events_after(quarter, hall, 59.0) == set()
        hall.disconnect("bob1")
        await quarter.pass_time(11.0)
        assert await events_after(quarter, hall, 58.0) == set()
        assert hall.presence.session_count == 1
        assert await events_after(quarter, hall, 3.0) == {ROOM}
        await quarter.pass_time(3.0)
        assert hall.presence.session_count == 0
        assert (await hall.presence.join("cid1", "cid", ROOM)).metadata == {}


async def test_there_is_an_end_to_how_many_sessions_there_are(quarter: PresenceCluster) -> None:
    async with quarter.node(max_sessions=2, max_sessions_per_user=1) as hall:
        await hall.join("ann1")
        other = ("acme", "other")
        assert await error_code(hall.join("ann1", key=other)) is ErrorCode.LIMIT_TOPICS
        await hall.join("bob1", key=other)
        third = ("acme", "third")
        assert await error_code(hall.join("cid1", key=third)) is ErrorCode.SERVER_OVERLOADED
        await hall.join("cid1", key=other)
        await hall.presence.leave("ann1", ROOM)
        quarter.clock.advance(61.0)
        await hall.wait_idle()
        await hall.join("cid1", key=third)
        assert await error_code(hall.join("cid1")) is ErrorCode.SERVER_OVERLOADED
        assert await hall.presence.participants(ROOM) is None, "a refusal changes nothing"


async def test_a_full_session_takes_nobody_new_but_everybody_back(quarter: PresenceCluster) -> None:
    async with quarter.node(max_participants=1) as hall:
        await hall.join("ann1")
        hall.disconnect("ann1")
        await quarter.settle()
        assert await error_code(hall.join("bob1")) is ErrorCode.LIMIT_CONNECTIONS
        await hall.join("ann2")
        assert await hall.participants() == {"ann": 1}


async def test_a_session_may_have_to_exist(quarter: PresenceCluster) -> None:
    async with quarter.node(join_creates=False) as hall:
        assert await error_code(hall.join("ann1")) is ErrorCode.SESSION_NOT_JOINED
        assert await hall.presence.participants(ROOM) is None


async def test_a_signal_is_heard_as_it_was_said(quarter: PresenceCluster) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1")
        await hall.presence.signal(ROOM, "ann1", "ann", '{"text":"hé\\u0001"}'.encode())
        await hall.wait_until(lambda: len(hall.events) > 1)
        news = hall.events[1]
        assert (news.kind, news.connection_id, news.user_id) == (
            SessionEventKind.SIGNAL,
            "ann1",
            "ann",
        )
        assert (news.data, news.ts_ms) == ('{"text":"hé\\u0001"}'.encode(), NOW_MS)


NAMES = ["a b", "ünïcode 文", "{brace}:x", 'quo"te\\', "line\nbreak", "-%d/"]


@pytest.mark.parametrize("user", NAMES)
async def test_users_and_orgs_may_have_any_name(quarter: PresenceCluster, user: str) -> None:
    async with quarter.node() as hall:
        key = (user, "room")
        await hall.watch(key)
        await hall.presence.join("x1", user, key)
        await hall.presence.join("x2", user, key)
        assert await hall.participants(key) == {user: 2}
        assert await hall.presence.kick(key, user) == 2
        await quarter.settle(key)
        assert hall.event_summaries() == [("joined", user, 1), ("kicked", user, 0)]
