"""Who is cut off again before it has got all that it missed gets it once, when it is back."""

import asyncio
import json
from typing import Any

from tests.kit.running import PRICE, Running, running
from tests.kit.wire import RawClient


class Returning:
    """A client with offsets, as a stock one in JavaScript keeps them; it reads when told to."""

    def __init__(self, floor: Running, namespace: str, user: str = "ann") -> None:
        self._floor = floor
        self._namespace = namespace
        self._token = floor.token(user)
        self._pid: str | None = None
        self._offset: str | None = None
        self.wire: RawClient | None = None

    async def come(self) -> None:
        """Open a connection and ask for what it had."""
        self.wire = await RawClient.open(self._floor.port)
        await self.wire.text()
        auth: dict[str, object] = {"token": self._token}
        if self._pid is not None:
            auth |= {"pid": self._pid, "offset": self._offset}
        self.wire.send(f"40{self._namespace},{json.dumps(auth)}")

    async def connected(self) -> bool:
        """Read the CONNECT, which comes before any event; whether it is who it was."""
        assert self.wire is not None
        text = await self.wire.text()
        assert text.startswith(f"40{self._namespace},"), text
        pid = json.loads(text[text.index("{") :])["pid"]
        before, self._pid = self._pid, pid
        return bool(before == pid)

    async def event(self) -> tuple[str, Any]:
        """The next event, seen."""
        assert self.wire is not None
        text = await self.wire.text()
        event, body, *offset = json.loads(text[text.index("[") :])
        if offset:
            (self._offset,) = offset
        return event, body

    async def call(self, event: str, payload: object) -> Any:
        """Ask for something while nothing else is said."""
        assert self.wire is not None
        return await self.wire.call(event, payload, namespace=self._namespace)

    async def cut(self) -> None:
        """Be cut off; what was not read is lost."""
        assert self.wire is not None
        sockets = self._floor.server.sockets
        left = sockets.connection_count - 1
        self.wire.cut()
        async with asyncio.timeout(1):
            while sockets.connection_count > left:
                await asyncio.sleep(0)


async def test_who_is_back_is_told_so_before_it_gets_what_it_missed() -> None:
    # The stock client keeps events that come before CONNECT for when it comes. If it is cut off in
    # between, it has them, has not said so, and hears them twice.
    async with running() as floor:
        ann = Returning(floor, "/market")
        await ann.come()
        assert not await ann.connected()
        await ann.event()
        await ann.call("subscribe", {"topics": ["TRADES:A", "PRICE:A"]})
        await ann.cut()
        await floor.server.publishing.publish("PRICE:A", PRICE)
        for _ in range(2):
            await ann.come()
            assert await ann.connected()
            await ann.cut()
        await ann.come()
        assert await ann.connected()
        event, body = await ann.event()
        assert (event, body["prev"], body["seq"]) == ("price", 0, 1)
        assert (await ann.event())[0] == "welcome"
        await ann.cut()


async def test_a_notice_is_not_heard_twice_by_who_is_cut_off_twice() -> None:
    async with running() as floor:
        ann = Returning(floor, "/session")
        await ann.come()
        await ann.connected()
        await ann.event()
        await ann.cut()
        floor.server.notifications.notify("default", "ann", "ping", {"n": 1})
        for _ in range(3):
            await ann.come()
            assert await ann.connected()
            await ann.cut()
        await ann.come()
        assert await ann.connected()
        assert [(await ann.event())[0] for _ in range(2)] == ["notification", "welcome"]
        assert (await ann.call("participants", {"session_id": "desk"}))["ok"]
        await ann.cut()


async def test_who_joined_before_it_came_is_not_told_to_who_is_back() -> None:
    async with running() as floor:
        ann, bob = Returning(floor, "/session"), Returning(floor, "/session", "bob")
        for each in (ann, bob):
            await each.come()
            await each.connected()
            await each.event()
        await bob.call("join", {"session_id": "desk"})
        await ann.call("join", {"session_id": "desk"})
        await ann.cut()
        await ann.come()
        assert await ann.connected()
        assert (await ann.event())[0] == "welcome"
        await bob.call("send", {"session_id": "desk", "data": {}})
        assert (await ann.event())[0] == "message"
        await ann.cut()
        await bob.cut()
