"""Random sequences of presence calls, on any node, compared with a simple model."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.core.errors import FloorcastError
from server.core.sessions.records import SessionKey
from tests.kit.redis.servers import RedisServer
from tests.kit.rigs.presence_cluster import ROOM, PresenceCluster, PresenceNode

GRACE, RETENTION = 4.0, 30.0
OTHER: SessionKey = ("acme", "other")

# The action, the connection (its user is the name, its node the digit), the session.
steps = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "leave", "lose", "rejoin", "kick", "close", "time"]),
        st.sampled_from(["ann1", "ann2", "bob1", "bob2", "cid2"]),
        st.sampled_from([ROOM, ROOM, OTHER]),
    ),
    max_size=25,
)


class Model:
    """A model of one session."""

    def __init__(self) -> None:
        self.joined: set[str] = set()
        self.lost_at: dict[str, float] = {}
        self.closed = False
        self.made = False
        self.events: list[tuple[str, str, int]] = []

    def users(self) -> set[str]:
        return {each[:-1] for each in self.joined} | set(self.lost_at)

    def emit(self, what: str, user: str = "") -> None:
        self.events.append((what, user, len(self.users())))

    def join(self, who: str) -> None:
        new = who[:-1] not in self.users()
        self.made = True
        self.joined.add(who)
        self.lost_at.pop(who[:-1], None)
        if new:
            self.emit("joined", who[:-1])

    def leave(self, who: str, lost_at: float | None) -> None:
        if who not in self.joined:
            return
        self.joined.discard(who)
        if who[:-1] not in self.users():
            if lost_at is None:
                self.emit("left", who[:-1])
            else:
                self.lost_at[who[:-1]] = lost_at

    def kick(self, user: str) -> int:
        mine = {each for each in self.joined if each[:-1] == user}
        self.joined -= mine
        self.lost_at.pop(user, None)
        self.emit("kicked", user)
        return len(mine)

    def close(self) -> int:
        count = len(self.joined)
        self.joined.clear()
        self.lost_at.clear()
        self.closed = True
        self.emit("closed")
        return count

    def expire(self, now: float) -> None:
        for user, when in sorted(self.lost_at.items(), key=lambda each: each[1]):
            if when + GRACE <= now:
                del self.lost_at[user]
                self.emit("left", user)


async def play(
    cluster: PresenceCluster, script: list[tuple[str, str, SessionKey]], node_count: int
) -> None:
    rules = {"grace_seconds": GRACE, "retention_seconds": RETENTION}
    models = {ROOM: Model(), OTHER: Model()}
    parked: set[tuple[str, SessionKey]] = set()
    async with cluster.node(**rules) as one, cluster.node(**rules) as two:
        nodes = [one, two][:node_count]
        if node_count == 1:
            cluster.nodes.remove(two)
        for node in nodes:
            await node.watch(OTHER)
        for what, who, key in script:
            model, node = models[key], nodes[(int(who[-1]) - 1) % node_count]
            await act(what, who, key, model, node, models, cluster, parked)
            for each in nodes:
                await each.wait_idle()
        for key, model in models.items():
            await cluster.settle(key)
            for node in nodes:
                events = [
                    (each.kind.value, each.user_id, each.participant_count)
                    for each in node.events
                    if each.key == key and each.kind not in ("signal", "refused", "over")
                ]
                # Users whose grace periods end together leave in any order.
                assert Counter(events) == Counter(model.events), (events, model.events)
                expected = {
                    user: sum(each[:-1] == user for each in model.joined) for user in model.users()
                }
                assert await node.participants(key) == expected
        if node_count == 1:
            cluster.nodes.append(two)


async def act(
    what: str,
    who: str,
    key: SessionKey,
    model: Model,
    node: PresenceNode,
    models: dict[SessionKey, Model],
    cluster: PresenceCluster,
    parked: set[tuple[str, SessionKey]],
) -> None:
    match what:
        case "time":
            # Steps shorter than the grace period, so that no two users expire together.
            cluster.clock.advance(1.5)
            for each in models.values():
                each.expire(cluster.clock.monotonic())
        case "join" if model.closed:
            with pytest.raises(FloorcastError):
                await node.join(who, key=key)
        case "join":
            await node.join(who, key=key)
            parked.discard((who, key))
            model.join(who)
        case "rejoin" if (who, key) in parked and model.made:
            parked.discard((who, key))
            if node.presence.can_rejoin(who[:-1], key):
                node.presence.rejoin(who, who[:-1], key)
                if not model.closed:
                    model.join(who)
        case "leave":
            await node.presence.leave(who, key)
            model.leave(who, None)
        case "lose":
            if who in model.joined:
                parked.add((who, key))
            node.disconnect(who, key)
            model.leave(who, cluster.clock.monotonic())
        case "kick" if who[:-1] in model.users():
            assert await node.presence.kick(key, who[:-1]) == model.kick(who[:-1])
        case "close" if model.made and not model.closed and len(model.events) > 4:
            assert await node.presence.close(key) == model.close()
        case "kick":
            with pytest.raises(FloorcastError):
                await node.presence.kick(key, who[:-1])
            if model.made and not model.closed:
                model.emit("barred", who[:-1])
        case _:
            pass


@pytest.mark.behaviour("D42", "D44")
@given(steps)
@settings(max_examples=100)
def test_presence_in_one_process_matches_the_model(
    script: list[tuple[str, str, SessionKey]],
) -> None:
    asyncio.run(play(PresenceCluster(None), script, node_count=1))


@pytest.mark.behaviour("D42", "D44")
@given(script=steps)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_presence_over_two_nodes_matches_the_model(
    shared_redis: RedisServer, script: list[tuple[str, str, SessionKey]]
) -> None:
    asyncio.run(play(PresenceCluster(shared_redis.url), script, node_count=2))
