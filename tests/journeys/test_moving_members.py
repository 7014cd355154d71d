"""Members of a session move from node to node at random, and miss nothing."""

import asyncio
import random

import pytest

from tests.kit.clients.recovering import Event, RecoveringClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import Node, nodes

STEPS = 40
DRAIN_AT = (15, 30)


class Member:
    """A client in the room, and what it has received there."""

    def __init__(self, node: Node, user: str) -> None:
        self.client = RecoveringClient(node, user, "/session")
        self.client.auth = {"session_id": "room"}
        self.messages: list[int] = []
        self.presence: list[tuple[str, str]] = []

    async def connect(self, node: Node) -> None:
        """Connect, or come back to any node; the connection must be recovered."""
        is_back = self.client.pid is not None
        self.client.node = node
        for event in await self.client.connect():
            self.take(event)
        assert self.client.recovered == is_back, self.client.user

    async def move(self, node: Node, rng: random.Random) -> None:
        """Lose the connection and come back; the old node may not have noticed by then."""
        wire = self.client.wire
        how = rng.choice(["noticed", "cut", "half open"])
        if how == "noticed":
            await self.client.cut()
        elif how == "cut":
            wire.cut()
        await self.connect(node)
        if how == "half open":
            wire.cut()

    async def drained(self) -> None:
        """Read to the end of a drained connection."""
        while (event := await self.client.next())[0] != "goodbye":
            self.take(event)
        await self.client.wire.until_closed()
        self.client.client = None

    async def read_to(self, last: int) -> None:
        while not self.messages or self.messages[-1] != last:
            self.take(await self.client.next())

    def take(self, event: Event) -> None:
        name, body = event
        if name == "message":
            self.messages.append(body["data"]["n"])
        elif name.startswith("user_"):
            self.presence.append((name, body["user_id"]))


class Crowd:
    """Movers in the room, a speaker, and guests who join and leave before everybody's eyes."""

    def __init__(self, cluster: list[Node], seed: int) -> None:
        self.cluster = list(cluster)
        self.rng = random.Random(seed)
        # The last node is never drained.
        self.speaker = Member(cluster[-1], "speaker")
        self.movers: list[Member] = []
        self.guests: list[Member] = []
        self.sent = 0
        self.announced: list[tuple[str, str]] = []

    async def gather(self, count: int) -> None:
        """Let the speaker and the movers join."""
        await self.speaker.connect(self.cluster[-1])
        for number in range(count):
            mover = Member(self.any_node(), f"mover{number}")
            await mover.connect(self.any_node())
            self.movers.append(mover)
        await self.speak(1)
        for mover in self.movers:
            await mover.read_to(self.sent)
            mover.presence.clear()

    def any_node(self) -> Node:
        return self.rng.choice(self.cluster)

    async def speak(self, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            sent = await self.speaker.client.call("send", session_id="room", data={"n": self.sent})
            assert sent["ok"]

    async def invite(self) -> None:
        guest = Member(self.any_node(), f"guest{len(self.announced)}")
        await guest.connect(self.any_node())
        self.guests.append(guest)
        self.announced.append(("user_joined", guest.client.user))

    async def dismiss(self) -> None:
        if self.guests:
            guest = self.guests.pop(self.rng.randrange(len(self.guests)))
            await guest.client.call("leave", session_id="room")
            await guest.client.cut()
            self.announced.append(("user_left", guest.client.user))

    async def act(self) -> None:
        """Do one random thing; moves overlap with messages and joins."""
        kind = self.rng.random()
        if kind < 0.3:
            await self.speak(self.rng.randint(1, 3))
        elif kind < 0.45:
            await self.invite()
        elif kind < 0.55:
            await self.dismiss()
        else:
            moving = self.rng.sample(self.movers, self.rng.randint(1, 4))
            await asyncio.gather(
                *(each.move(self.any_node(), self.rng) for each in moving),
                self.speak(self.rng.randint(0, 3)),
                *([self.invite()] if self.rng.random() < 0.5 else []),
            )

    async def drain(self) -> None:
        """Stop the first node; its clients come back elsewhere, before or after it is gone."""
        node = self.cluster.pop(0)
        drained = [each for each in (*self.movers, *self.guests) if each.client.node is node]
        stopping = asyncio.create_task(node.stop())

        async def come_back(member: Member) -> None:
            await member.drained()
            if self.rng.random() < 0.5:
                await asyncio.wait([stopping])
            await member.connect(self.any_node())

        await asyncio.gather(*map(come_back, drained), self.speak(5), self.invite())
        await stopping

    async def check(self) -> None:
        """Check that nobody missed, repeated or saw anything that it should not."""
        await self.speak(1)
        for mover in self.movers:
            await mover.read_to(self.sent)
            assert mover.messages == list(range(1, self.sent + 1)), mover.client.user
            assert mover.presence == self.announced, mover.client.user
        for node in self.cluster:
            await until(lambda node=node: node.presence.is_idle)
        reply = await self.speaker.client.call("participants", session_id="room")
        everybody = [self.speaker, *self.movers, *self.guests]
        assert {each["user_id"]: each["connections"] for each in reply["participants"]} == {
            each.client.user: 1 for each in everybody
        }
        for each in everybody:
            await each.client.cut()


@pytest.mark.parametrize("seed", range(3))
async def test_moving_members_miss_nothing_unseen(shared_redis: RedisServer, seed: int) -> None:
    async with nodes(shared_redis, 4) as cluster:
        crowd = Crowd(cluster, seed)
        await crowd.gather(6)
        for step in range(STEPS):
            await (crowd.drain() if step in DRAIN_AT else crowd.act())
        await crowd.check()
