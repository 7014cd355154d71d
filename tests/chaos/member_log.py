"""Check the invariants of sessions against what their members receive."""

import sys
from typing import Any

from tests.kit.message_log import MessageLog, PositionKey


class SessionLog(MessageLog):
    """One session with a single epoch, as its members together have seen it."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id)
        self.epoch = ""
        self.acknowledged_seq = 0
        # The newest known seq: a join reply may name it before any member reads its message.
        self.head = 0
        # Members that do not know their start position yet.
        self.unpositioned: set[MemberLog] = set()

    @property
    def id(self) -> str:
        return self.name

    def acknowledge(self, position: PositionKey, message: object) -> None:
        super().acknowledge(position, message)
        self.acknowledged_seq = max(self.acknowledged_seq, position[1])

    def record(self, position: PositionKey, message: object) -> None:
        epoch, seq = position
        self.epoch = self.epoch or epoch
        assert epoch == self.epoch
        self.head = max(self.head, seq)
        super().record(position, message)


class MemberLog:
    """What one connection received in one session, from join to leave."""

    def __init__(self, session: SessionLog, user: str, last: int | None, *, after: int = 0) -> None:
        self.session = session
        self.user = user
        # The last received seq. A join at CONNECT returns no start position: it is after every
        # message acknowledged before the join, and before every message sent after it.
        self.last = last
        self._begins_after = after
        self._begins_before = sys.maxsize
        self._start = 0
        if last is None:
            session.unpositioned.add(self)
        # Known presence by user; complete once a participant list was received.
        self._present: dict[str, bool] = {}
        self._knows_all = False

    def record_event(self, event: str, body: dict[str, Any]) -> None:
        """Record and check an event of this session."""
        if event == "message":
            self._record_message(body)
        else:
            self._record_presence(event == "user_joined", body)

    def record_sent(self, seq: int) -> None:
        """Record that a message was sent during this membership."""
        self._begins_before = min(self._begins_before, seq)
        assert self.last is None or self._start < seq

    def check_join(self, reply: dict[str, Any], since: int | None = None) -> None:
        """Check the reply to the first or a repeated join."""
        if since is not None:
            assert reply["recovered"], (self.session.id, since, reply["seq"])
            for message in reply["messages"]:
                self._record_message(message)
        if self.last is None:
            self._begin(reply["seq"])
        self.session.head = max(self.session.head, reply["seq"])
        assert self.last == reply["seq"], "no message overtakes the reply"
        self.check_participants(reply)

    def check_participants(self, reply: dict[str, Any]) -> None:
        """Check a participant list against the presence events."""
        users = {each["user_id"] for each in reply["participants"]}
        assert len(users) == reply["participant_count"] == len(reply["participants"])
        assert self.user in users
        for user, is_present in self._present.items():
            assert (user in users) == is_present, (self.session.id, self.user, user)
        if self._knows_all:
            assert users - {self.user} == {
                user for user, is_present in self._present.items() if is_present
            }
        self._present.update(dict.fromkeys(users - {self.user}, True))
        self._knows_all = True

    def check_left(self, acknowledged: int) -> None:
        """Check that every message acknowledged before the leave was received."""
        self.end()
        if self.last is not None:
            assert self.last >= acknowledged, (self.session.id, self.last, acknowledged)

    def end(self) -> None:
        """End the membership without checking what was received."""
        self.session.unpositioned.discard(self)

    def _begin(self, seq: int) -> None:
        assert self._begins_after <= seq < self._begins_before
        self.last = self._start = seq
        self.session.unpositioned.discard(self)

    def _record_message(self, body: dict[str, Any]) -> None:
        seq, message_id = body["seq"], body["id"]
        assert message_id.startswith(f"{self.session.id}/{body['user_id']}/"), body
        if self.last is None:
            self._begin(seq - 1)
        assert seq - 1 == self.last, (self.session.id, self.user, seq, self.last)
        self.last = seq
        self.session.record((body["epoch"], seq), message_id)

    def _record_presence(self, joined: bool, body: dict[str, Any]) -> None:
        user = body["user_id"]
        assert user != self.user
        before = self._present.get(user, False if self._knows_all else None)
        assert before is not joined, (self.session.id, self.user, user, joined)
        self._present[user] = joined
        if self._knows_all:
            assert body["participant_count"] == 1 + sum(self._present.values())
