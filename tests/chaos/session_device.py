"""One device of a user that comes, talks, goes and is cut off as its dice fall."""

import json
from collections import Counter
from random import Random
from typing import Any

from tests.chaos.session_ledger import Room, Stay
from tests.kit.clients.session_client import Member
from tests.kit.server.in_process import Running


class Seat:
    """What it does follows from the seed alone, however the others are interleaved."""

    def __init__(
        self, floor: Running, rooms: list[Room], user: str, device: int, done: Counter[str]
    ) -> None:
        self._floor = floor
        self.user = user
        self._name = f"{user}/{device}"
        # The first is its home.
        self._rooms = rooms
        self._done = done
        self._dice = Random(self._name)
        self._number = 0
        self._member: Member | None = None
        self.stays: dict[str, Stay] = {}
        # How far it had come in each session when it was cut off.
        self._places: dict[str, int] = {}
        # Sent, but cut off before an answer came.
        self._unsure: tuple[Room, str] | None = None

    @property
    def here(self) -> bool:
        """Whether it is connected."""
        return self._member is not None

    async def act(self) -> None:
        """Do a few things, one after the other."""
        for _ in range(self._dice.randint(1, 9)):
            self._done["operations"] += 1
            await self._act()

    async def catch_up(self) -> None:
        """Read until it has what anybody has; nothing that is too much has come."""
        assert self._member is not None
        for stay in self.stays.values():
            if stay.last is None:
                await self._place(stay.room)
            while stay.last is not None and stay.last < stay.room.head:
                self._member._keep(await self._member.client.text())
                self._take()
            stay.told(await self._call("participants", session_id=stay.room.id))
            assert stay.last == stay.room.head, (self._name, stay.room.id, stay.last)

    async def go(self) -> None:
        """Be gone for good, in one way or another."""
        if self._member is not None:
            await self._dice.choice((self._cut, self._depart))()

    async def _act(self) -> None:
        if self._member is None:
            await self._come()
        elif not self.stays:
            await self._join(self._dice.choice(self._rooms))
        else:
            actions = (self._send, self._leave, self._join_any, self._cut, self._cut_while_sending)
            (action,) = self._dice.choices(actions, (60, 11, 15, 8, 6))
            await action()

    async def _come(self) -> None:
        self._done["connects"] += 1
        if self._dice.random() < 0.4:
            room = self._rooms[0]
            acknowledged = room.acknowledged
            self._member = await self._connect(room.id)
            self.stays[room.id] = Stay(room, self.user, None, after=acknowledged)
            self._places.clear()
        else:
            self._member = await self._connect(None)
            await self._join(self._rooms[0])

    async def _connect(self, session_id: str | None) -> Member:
        return await Member.come(self._floor, self.user, session_id, ttl_seconds=1e6)

    async def _join_any(self) -> None:
        await self._join(self._dice.choice(self._rooms))

    async def _join(self, room: Room) -> None:
        await self._place(room)
        if self._unsure is not None and self._unsure[0] is room:
            # The same message under the same id, whether it was taken then or not.
            await self._say(*self._unsure)
            self._unsure = None

    async def _place(self, room: Room) -> None:
        """Join, or join once more where it is in already; who was cut off gets what it missed."""
        self._done["joins"] += 1
        stay = self.stays.get(room.id)
        place = None if stay else self._places.pop(room.id, None)
        since = {} if place is None else {"since": {"epoch": room.epoch, "seq": place}}
        reply = await self._call("join", session_id=room.id, **since)
        room.epoch = room.epoch or reply["epoch"]
        assert reply["epoch"] == room.epoch
        if stay is None:
            start = reply["seq"] if place is None else place
            stay = self.stays[room.id] = Stay(room, self.user, start)
        stay.joined(reply, place)
        self._done["recovered"] += len(reply["messages"])

    async def _leave(self) -> None:
        self._done["leaves"] += 1
        stay = self._dice.choice(list(self.stays.values()))
        acknowledged = stay.room.acknowledged
        await self._call("leave", session_id=stay.room.id)
        del self.stays[stay.room.id]
        stay.left(acknowledged)

    async def _send(self) -> None:
        room = self._dice.choice(list(self.stays.values())).room
        message_id = self._new_id(room)
        beginners = list(room.unplaced)
        place = await self._say(room, message_id)
        for stay in beginners:
            stay.hears(place)
        if self._dice.random() < 0.1:
            assert await self._say(room, message_id) == place

    async def _say(self, room: Room, message_id: str) -> int:
        self._done["sends"] += 1
        reply = await self._call("send", session_id=room.id, data={"is": message_id}, id=message_id)
        seq: int = reply["seq"]
        room.note(reply["epoch"], seq, message_id)
        room.acknowledged = max(room.acknowledged, seq)
        return seq

    async def _cut(self) -> None:
        assert self._member is not None
        self._done["cuts"] += 1
        self._member.cut()
        self._places = {
            each.room.id: each.last for each in self.stays.values() if each.last is not None
        }
        self._forget()

    async def _cut_while_sending(self) -> None:
        assert self._member is not None
        room = self._dice.choice(list(self.stays.values())).room
        if self._unsure is None:
            message_id = self._new_id(room)
            self._unsure = room, message_id
            body = {"session_id": room.id, "data": {"is": message_id}, "id": message_id}
            self._member.client.send(f"42/session,8{json.dumps(['send', body])}")
        await self._cut()

    async def _depart(self) -> None:
        assert self._member is not None
        self._member.leave()
        await self._member.client.leave()
        self._forget()

    def _forget(self) -> None:
        self._member = None
        for stay in self.stays.values():
            stay.ended()
        self.stays.clear()

    def _new_id(self, room: Room) -> str:
        self._number += 1
        return f"{room.id}/{self._name}/{self._number}"

    async def _call(self, event: str, **payload: Any) -> dict[str, Any]:
        assert self._member is not None
        reply: dict[str, Any] = await self._member.call(event, **payload)
        assert reply["ok"], (self._name, event, reply)
        self._take()
        return reply

    def _take(self) -> None:
        assert self._member is not None
        for event, body in self._member.heard:
            self._done[event] += 1
            self.stays[body["session_id"]].hear(event, body)
        self._member.heard.clear()
