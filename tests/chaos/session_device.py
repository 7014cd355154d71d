"""Run one device that joins, sends, leaves and is cut at random."""

import json
from collections import Counter
from random import Random
from typing import Any

from tests.chaos.member_log import MemberLog, SessionLog
from tests.kit.clients.session_client import SessionClient
from tests.kit.server.in_process import RunningServer


class Device:
    """A device whose actions depend on its seed alone, not on the other devices."""

    def __init__(
        self,
        node: RunningServer,
        sessions: list[SessionLog],
        user: str,
        device: int,
        counts: Counter[str],
    ) -> None:
        self._node = node
        self.user = user
        self._name = f"{user}/{device}"
        # The first is the one it joins when it connects.
        self._sessions = sessions
        self._counts = counts
        self._random = Random(self._name)
        self._number = 0
        self._client: SessionClient | None = None
        self.memberships: dict[str, MemberLog] = {}
        # The last seq of each session when the connection was cut.
        self._last_seqs: dict[str, int] = {}
        # Sent, but cut before the reply.
        self._unanswered: tuple[SessionLog, str] | None = None

    @property
    def is_connected(self) -> bool:
        return self._client is not None

    async def act(self) -> None:
        """Do a few random actions in order."""
        for _ in range(self._random.randint(1, 9)):
            self._counts["operations"] += 1
            await self._act()

    async def catch_up(self) -> None:
        """Read up to each session's head, and check that nothing more came."""
        assert self._client is not None
        for member in self.memberships.values():
            if member.last is None:
                await self._send_join(member.session)
            while member.last is not None and member.last < member.session.head:
                self._client.take_packet(await self._client.client.text())
                self._record_events()
            member.check_participants(
                await self._call("participants", session_id=member.session.id)
            )
            assert member.last == member.session.head, (self._name, member.session.id, member.last)

    async def leave(self) -> None:
        """Disconnect for good, by a cut or an orderly close."""
        if self._client is not None:
            await self._random.choice((self._cut, self._disconnect))()

    async def _act(self) -> None:
        if self._client is None:
            await self._connect_and_join()
        elif not self.memberships:
            await self._join_and_resend(self._random.choice(self._sessions))
        else:
            actions = (self._send, self._leave, self._join_any, self._cut, self._cut_while_sending)
            (action,) = self._random.choices(actions, (60, 11, 15, 8, 6))
            await action()

    async def _connect_and_join(self) -> None:
        self._counts["connects"] += 1
        if self._random.random() < 0.4:
            session = self._sessions[0]
            acknowledged_seq = session.acknowledged_seq
            self._client = await self._connect(session.id)
            self.memberships[session.id] = MemberLog(
                session, self.user, None, after=acknowledged_seq
            )
            self._last_seqs.clear()
        else:
            self._client = await self._connect(None)
            await self._join_and_resend(self._sessions[0])

    async def _connect(self, session_id: str | None) -> SessionClient:
        return await SessionClient.connect(self._node, self.user, session_id, ttl_seconds=1e6)

    async def _join_any(self) -> None:
        await self._join_and_resend(self._random.choice(self._sessions))

    async def _join_and_resend(self, session: SessionLog) -> None:
        await self._send_join(session)
        if self._unanswered is not None and self._unanswered[0] is session:
            # Send it again under the same id: the server may have accepted it or not.
            await self._send_message(*self._unanswered)
            self._unanswered = None

    async def _send_join(self, session: SessionLog) -> None:
        """Join, or join again; after a cut, ask for the missed messages."""
        self._counts["joins"] += 1
        member = self.memberships.get(session.id)
        last_seq = None if member else self._last_seqs.pop(session.id, None)
        since = {} if last_seq is None else {"since": {"epoch": session.epoch, "seq": last_seq}}
        reply = await self._call("join", session_id=session.id, **since)
        session.epoch = session.epoch or reply["epoch"]
        assert reply["epoch"] == session.epoch
        if member is None:
            start = reply["seq"] if last_seq is None else last_seq
            member = self.memberships[session.id] = MemberLog(session, self.user, start)
        member.check_join(reply, last_seq)
        self._counts["recovered"] += len(reply["messages"])

    async def _leave(self) -> None:
        self._counts["leaves"] += 1
        member = self._random.choice(list(self.memberships.values()))
        acknowledged_seq = member.session.acknowledged_seq
        await self._call("leave", session_id=member.session.id)
        del self.memberships[member.session.id]
        member.check_left(acknowledged_seq)

    async def _send(self) -> None:
        session = self._random.choice(list(self.memberships.values())).session
        message_id = self._new_id(session)
        unpositioned = list(session.unpositioned)
        seq = await self._send_message(session, message_id)
        for member in unpositioned:
            member.record_sent(seq)
        if self._random.random() < 0.1:
            assert await self._send_message(session, message_id) == seq

    async def _send_message(self, session: SessionLog, message_id: str) -> int:
        self._counts["sends"] += 1
        reply = await self._call(
            "send", session_id=session.id, data={"is": message_id}, id=message_id
        )
        seq: int = reply["seq"]
        session.acknowledge((reply["epoch"], seq), message_id)
        return seq

    async def _cut(self) -> None:
        assert self._client is not None
        self._counts["cuts"] += 1
        self._client.cut()
        self._last_seqs = {
            each.session.id: each.last
            for each in self.memberships.values()
            if each.last is not None
        }
        self._forget()

    async def _cut_while_sending(self) -> None:
        assert self._client is not None
        session = self._random.choice(list(self.memberships.values())).session
        if self._unanswered is None:
            message_id = self._new_id(session)
            self._unanswered = session, message_id
            body = {"session_id": session.id, "data": {"is": message_id}, "id": message_id}
            self._client.client.send(f"42/session,8{json.dumps(['send', body])}")
        await self._cut()

    async def _disconnect(self) -> None:
        assert self._client is not None
        self._client.leave()
        await self._client.client.close()
        self._forget()

    def _forget(self) -> None:
        self._client = None
        for member in self.memberships.values():
            member.end()
        self.memberships.clear()

    def _new_id(self, session: SessionLog) -> str:
        self._number += 1
        return f"{session.id}/{self._name}/{self._number}"

    async def _call(self, event: str, **payload: Any) -> dict[str, Any]:
        assert self._client is not None
        reply: dict[str, Any] = await self._client.call(event, **payload)
        assert reply["ok"], (self._name, event, reply)
        self._record_events()
        return reply

    def _record_events(self) -> None:
        assert self._client is not None
        for event, body in self._client.events:
            self._counts[event] += 1
            self.memberships[body["session_id"]].record_event(event, body)
        self._client.events.clear()
