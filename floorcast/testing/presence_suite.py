"""The suites that presence managers must pass: join, leave, grace period, kick, close, expiry."""

from collections.abc import Awaitable

import pytest

from client_sdk.contract import ErrorCode
from floorcast.testing.clock import START
from floorcast.testing.presence import ROOM, PresenceCluster, PresenceNode
from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEventKind
from server.core.sessions.presence import Member

_NOW_MS = int(START * 1000)
_NAMES = ["a b", "ünïcode 文", "{brace}:x", 'quo"te\\', "line\nbreak", "-%d/"]


class PresenceSuite:
    """Subclass it, and add a fixture `cluster` that returns a `PresenceCluster` of your manager.

    It needs pytest-asyncio in its auto mode. Example:

        class TestMyPresence(PresenceSuite):
            @pytest.fixture
            def cluster(self) -> MyCluster:
                return MyCluster()
    """

    async def test_first_join_creates_session_and_users_count_once(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node() as node:
            metadata: dict[str, object] = {"title": "import", "steps": [1, {"of": 3}]}
            first = await node.presence.join("ann1", "ann", ROOM, metadata)
            assert (first.members, first.metadata) == ((Member("ann", 1, _NOW_MS),), metadata)
            cluster.clock.advance(5)
            second = await node.presence.join("bob1", "bob", ROOM, {"title": "mine"})
            assert second.metadata == metadata, "the first join's metadata stays"
            third = await node.presence.join("ann2", "ann", ROOM)
            assert third.members == (Member("ann", 2, _NOW_MS), Member("bob", 1, _NOW_MS + 5000))
            assert first.revision < second.revision == third.revision
            assert await node.presence.participants(ROOM) == third
            await cluster.settle()
            assert node.event_summaries() == [("joined", "ann", 1), ("joined", "bob", 2)]
            assert [each.revision for each in node.events[:2]] == [first.revision, second.revision]
            assert [each.ts_ms for each in node.events[:2]] == [_NOW_MS, _NOW_MS + 5000]
            assert {each.key for each in node.events} == {ROOM}

    async def test_presence_calls_are_idempotent(self, cluster: PresenceCluster) -> None:
        async with cluster.node() as node:
            await node.join("ann1", "ann1", "bob1")
            assert await node.participants() == {"ann": 1, "bob": 1}
            for _ in range(2):
                await node.presence.leave("ann1", ROOM)
                node.presence.remove("nobody1", ROOM, lost=True)
                node.presence.remove("ann1", ("acme", "nowhere"), lost=False)
            await cluster.settle()
            assert node.event_summaries() == [
                ("joined", "ann", 1),
                ("joined", "bob", 2),
                ("left", "ann", 1),
            ]
            assert await node.participants() == {"bob": 1}

    async def test_user_leaves_with_the_last_connection(self, cluster: PresenceCluster) -> None:
        async with cluster.node() as node:
            await node.join("ann1", "bob1", "bob2")
            await node.presence.leave("bob1", ROOM)
            node.presence.remove("bob2", ROOM, lost=False)
            await cluster.settle()
            assert node.event_summaries()[2:] == [("left", "bob", 1)]

    async def test_lost_user_leaves_once_after_the_grace_period(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node() as node:
            await node.join("ann1", "bob1", "bob2")
            node.disconnect("bob1")
            node.disconnect("bob2")
            await cluster.pass_time(9.0)
            assert await node.participants() == {"ann": 1, "bob": 0}
            await cluster.pass_time(2.0)
            await cluster.pass_time(20.0)
            assert node.event_summaries()[2:] == [("left", "bob", 1)]

    async def test_user_back_in_the_grace_period_emits_no_event(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node() as node:
            await node.join("ann1", "bob1", "cid1")
            node.disconnect("bob1")
            node.disconnect("cid1")
            await cluster.pass_time(9.0)
            await node.join("bob2")
            assert node.presence.can_rejoin("cid", ROOM)
            node.presence.rejoin("cid1", "cid", ROOM)
            await cluster.pass_time(20.0)
            assert node.event_summaries()[3:] == []
            assert await node.participants() == {"ann": 1, "bob": 1, "cid": 1}

    async def test_calls_for_one_connection_apply_in_order(self, cluster: PresenceCluster) -> None:
        async with cluster.node() as node:
            await node.join("ann1", "bob1")
            for _ in range(5):
                node.disconnect("bob1")
                node.presence.rejoin("bob1", "bob", ROOM)
            node.disconnect("ann1")
            await cluster.pass_time(20.0)
            assert node.event_summaries()[2:] == [("left", "ann", 1)]

    async def test_lost_user_leaves_at_once_without_a_grace_period(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node(grace_seconds=0.0) as node:
            await node.join("ann1", "bob1")
            node.disconnect("bob1")
            await cluster.settle()
            assert node.event_summaries()[2:] == [("left", "bob", 1)]

    async def test_kick_removes_every_connection_of_a_user(self, cluster: PresenceCluster) -> None:
        async with cluster.node() as node:
            await node.join("ann1", "bob1", "bob2", "cid1")
            assert await node.presence.kick(ROOM, "bob") == 2
            node.disconnect("cid1")
            await cluster.settle()
            assert await node.presence.kick(ROOM, "cid") == 0
            assert (
                await _error_code(node.presence.kick(ROOM, "bob")) is ErrorCode.SESSION_NOT_JOINED
            )
            nowhere = ("acme", "nowhere")
            assert (
                await _error_code(node.presence.kick(nowhere, "bob"))
                is ErrorCode.SESSION_NOT_JOINED
            )
            await node.join("bob1")
            await cluster.pass_time(20.0)
            assert node.event_summaries()[3:] == [
                ("kicked", "bob", 2),
                ("kicked", "cid", 1),
                ("barred", "bob", 1),
                ("joined", "bob", 2),
            ]
            assert await node.participants() == {"ann": 1, "bob": 1}

    async def test_closed_session_rejects_calls_until_it_expires(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node() as node:
            await node.join("ann1", "bob1", "bob2")
            node.disconnect("ann1")
            await cluster.settle()
            assert await node.presence.close(ROOM) == 2
            for call in (
                node.presence.join("ann1", "ann", ROOM),
                node.presence.kick(ROOM, "ann"),
                node.presence.close(ROOM),
            ):
                assert await _error_code(call) is ErrorCode.SESSION_CLOSED
            participants = await node.presence.participants(ROOM)
            assert participants is not None
            assert (participants.closed, participants.members) == (True, ())
            await cluster.pass_time(20.0)
            assert node.event_summaries()[2:] == [("closed", "", 0)]
            assert await _expired_after(cluster, node, 62.0) == {ROOM}
            assert [each.key for each in node.events if each.kind == "over"] == [ROOM]
            assert await node.presence.participants(ROOM) is None
            await node.join("ann1")
            assert await node.participants() == {"ann": 1}

    async def test_empty_session_expires_after_its_retention(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node() as node:
            await node.presence.join("ann1", "ann", ROOM, {"first": True})
            await node.presence.leave("ann1", ROOM)
            assert await _expired_after(cluster, node, 59.0) == set()
            assert (await node.presence.join("bob1", "bob", ROOM)).metadata == {"first": True}
            assert await _expired_after(cluster, node, 59.0) == set()
            node.disconnect("bob1")
            await cluster.pass_time(11.0)
            assert await _expired_after(cluster, node, 58.0) == set()
            assert node.presence.session_count == 1
            assert await _expired_after(cluster, node, 3.0) == {ROOM}
            await cluster.pass_time(3.0)
            assert node.presence.session_count == 0
            assert (await node.presence.join("cid1", "cid", ROOM)).metadata == {}

    async def test_number_of_sessions_is_limited(self, cluster: PresenceCluster) -> None:
        async with cluster.node(max_sessions=2, max_sessions_per_user=1) as node:
            await node.join("ann1")
            other = ("acme", "other")
            assert await _error_code(node.join("ann1", key=other)) is ErrorCode.LIMIT_TOPICS
            await node.join("bob1", key=other)
            third = ("acme", "third")
            assert await _error_code(node.join("cid1", key=third)) is ErrorCode.SERVER_OVERLOADED
            await node.join("cid1", key=other)
            await node.presence.leave("ann1", ROOM)
            cluster.clock.advance(61.0)
            await node.wait_idle()
            await node.join("cid1", key=third)
            assert await _error_code(node.join("cid1")) is ErrorCode.SERVER_OVERLOADED
            assert await node.presence.participants(ROOM) is None, "a rejected join changes nothing"

    async def test_one_org_leaves_room_for_the_sessions_of_another(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node(max_sessions=3, max_sessions_per_org=2) as node:
            await node.join("ann1", key=("acme", "a"))
            await node.join("bob1", key=("acme", "b"))
            third = ("acme", "c")
            assert await _error_code(node.join("cid1", key=third)) is ErrorCode.LIMIT_SHARE
            await node.join("cid1", key=("acme", "b"))
            await node.join("eve1", key=("other", "c"))
            await node.presence.leave("ann1", ("acme", "a"))
            cluster.clock.advance(61.0)
            await node.wait_idle()
            await node.join("cid1", key=third)

    async def test_full_session_rejects_new_users_only(self, cluster: PresenceCluster) -> None:
        async with cluster.node(max_participants=1) as node:
            await node.join("ann1")
            node.disconnect("ann1")
            await cluster.settle()
            assert await _error_code(node.join("bob1")) is ErrorCode.LIMIT_CONNECTIONS
            await node.join("ann2")
            assert await node.participants() == {"ann": 1}

    async def test_join_needs_an_existing_session_if_configured(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node(join_creates=False) as node:
            assert await _error_code(node.join("ann1")) is ErrorCode.SESSION_NOT_JOINED
            assert await node.presence.participants(ROOM) is None

    async def test_signal_arrives_unchanged(self, cluster: PresenceCluster) -> None:
        async with cluster.node() as node:
            await node.join("ann1")
            await node.presence.signal(ROOM, "ann1", "ann", '{"text":"hé\\u0001"}'.encode())
            await node.wait_until(lambda: len(node.events) > 1)
            event = node.events[1]
            assert (event.kind, event.connection_id, event.user_id) == (
                SessionEventKind.SIGNAL,
                "ann1",
                "ann",
            )
            assert (event.data, event.ts_ms) == ('{"text":"hé\\u0001"}'.encode(), _NOW_MS)

    @pytest.mark.parametrize("user", _NAMES)
    async def test_users_and_orgs_can_have_any_name(
        self, cluster: PresenceCluster, user: str
    ) -> None:
        async with cluster.node() as node:
            key = (user, "room")
            await node.watch(key)
            await node.presence.join("x1", user, key)
            await node.presence.join("x2", user, key)
            assert await node.participants(key) == {user: 2}
            assert await node.presence.kick(key, user) == 2
            await cluster.settle(key)
            assert node.event_summaries() == [("joined", user, 1), ("kicked", user, 0)]


class SharedPresenceSuite(PresenceSuite):
    """The suite of a manager that several nodes share."""

    async def test_all_nodes_get_the_same_events_in_order(self, cluster: PresenceCluster) -> None:
        async with cluster.node() as one, cluster.node() as two:
            await one.join("ann1")
            await two.join("bob1", "ann2")
            await one.presence.leave("ann1", ROOM)
            assert await one.participants() == await two.participants() == {"ann": 1, "bob": 1}
            await two.presence.leave("ann2", ROOM)
            await cluster.settle()
            expected = [("joined", "ann", 1), ("joined", "bob", 2), ("left", "ann", 1)]
            assert one.event_summaries() == two.event_summaries() == expected
            revisions = [each.revision for each in one.events if each.revision]
            assert revisions == sorted(set(revisions))

    async def test_user_back_on_another_node_emits_no_event(self, cluster: PresenceCluster) -> None:
        async with cluster.node() as one, cluster.node() as two:
            await one.join("ann1", "bob1")
            one.disconnect("ann1")
            await cluster.pass_time(9.0)
            await two.join("ann2")
            two.disconnect("ann2")
            await cluster.pass_time(9.0)
            assert two.event_summaries()[2:] == []
            await cluster.pass_time(2.0)
            await cluster.pass_time(20.0)
            assert one.event_summaries()[2:] == two.event_summaries()[2:] == [("left", "ann", 1)]

    async def test_moderator_on_another_node_kicks_and_closes(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node() as one, cluster.node() as two:
            await one.join("ann1", "bob1")
            await two.join("bob2")
            assert await two.presence.kick(ROOM, "bob") == 2
            assert await two.presence.close(ROOM) == 1
            await cluster.settle()
            assert (
                one.event_summaries()[2:]
                == two.event_summaries()[2:]
                == [("kicked", "bob", 1), ("closed", "", 0)]
            )
            await cluster.pass_time(62.0)
            assert await one.presence.participants(ROOM) is None

    async def test_kick_of_an_expired_user_emits_barred_on_all_nodes(
        self, cluster: PresenceCluster
    ) -> None:
        async with cluster.node() as one, cluster.node() as two:
            await one.join("ann1", "bob1")
            one.disconnect("bob1")
            await cluster.pass_time(20.0)
            with pytest.raises(FloorcastError, match="not in the session"):
                await two.presence.kick(ROOM, "bob")
            await cluster.settle()
            assert (
                one.event_summaries()[2:]
                == two.event_summaries()[2:]
                == [("left", "bob", 1), ("barred", "bob", 1)]
            )


async def _error_code(call: Awaitable[object]) -> ErrorCode:
    with pytest.raises(FloorcastError) as refused:
        await call
    return refused.value.code


async def _expired_after(
    cluster: PresenceCluster, node: PresenceNode, seconds: float
) -> set[tuple[str, str]]:
    """Let time pass; returns the sessions whose logs are forgotten or to forget."""
    cluster.clock.advance(seconds)
    expired = set(await node.presence.sweep())
    await node.wait_idle()
    return expired or ({ROOM} if await node.presence.participants(ROOM) is None else set())
