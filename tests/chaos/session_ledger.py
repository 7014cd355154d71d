"""What has to be true of sessions, noted from what their members were told."""

import sys
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SessionLog:
    """One session as all its members together know it."""

    id: str
    epoch: str = ""
    # The id of the message at each place, whoever learned of it first.
    log: dict[int, str] = field(default_factory=dict)
    # The newest place that a sender was told.
    acknowledged: int = 0
    # The newest that anybody knows of: who joins may be told of a place before its message is read.
    head: int = 0
    # Who is in it without knowing yet from where on.
    unpositioned: "set[MemberLog]" = field(default_factory=set)

    def record(self, epoch: str, seq: int, message_id: str) -> None:
        """Everybody finds the same message at the same place."""
        self.epoch = self.epoch or epoch
        assert epoch == self.epoch
        self.head = max(self.head, seq)
        assert self.log.setdefault(seq, message_id) == message_id, (self.id, seq)

    def check_unique(self) -> None:
        """No message has two places."""
        assert len(set(self.log.values())) == len(self.log), self.id


class MemberLog:
    """One connection in one session, from its joining to its leaving."""

    def __init__(self, session: SessionLog, user: str, last: int | None, *, after: int = 0) -> None:
        self.session = session
        self.user = user
        # The last message that came. Who joins while connecting is not told where it begins:
        # somewhere after what was acknowledged before, and before what was sent afterwards.
        self.last = last
        self._begins_after = after
        self._begins_before = sys.maxsize
        self._start = 0
        if last is None:
            session.unpositioned.add(self)
        # Who is there, as far as this one was told; once it has been told all, others are not.
        self._present: dict[str, bool] = {}
        self._knows_all = False

    def record_event(self, event: str, body: dict[str, Any]) -> None:
        """Take an event of this session."""
        if event == "message":
            self._record_message(body)
        else:
            self._record_presence(event == "user_joined", body)

    def record_sent(self, seq: int) -> None:
        """This message was sent while it was here."""
        self._begins_before = min(self._begins_before, seq)
        assert self.last is None or self._start < seq

    def check_join(self, reply: dict[str, Any], since: int | None = None) -> None:
        """Take the answer to a join: the first, or one while it is in already."""
        if since is not None:
            assert reply["recovered"], (self.session.id, since, reply["seq"])
            for message in reply["messages"]:
                self._record_message(message)
        if self.last is None:
            self._begin(reply["seq"])
        self.session.head = max(self.session.head, reply["seq"])
        assert self.last == reply["seq"], "nothing is on its way past the answer"
        self.check_participants(reply)

    def check_participants(self, reply: dict[str, Any]) -> None:
        """Take a list of who is there."""
        users = {each["user_id"] for each in reply["participants"]}
        assert len(users) == reply["participant_count"] == len(reply["participants"])
        assert self.user in users
        for user, there in self._present.items():
            assert (user in users) == there, (self.session.id, self.user, user)
        if self._knows_all:
            assert users - {self.user} == {user for user, there in self._present.items() if there}
        self._present.update(dict.fromkeys(users - {self.user}, True))
        self._knows_all = True

    def check_left(self, acknowledged: int) -> None:
        """It is gone: what had been acknowledged before it said so has come."""
        self.end()
        if self.last is not None:
            assert self.last >= acknowledged, (self.session.id, self.last, acknowledged)

    def end(self) -> None:
        """It is gone, and nothing is known of what came until then."""
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
        self.session.record(body["epoch"], seq, message_id)

    def _record_presence(self, joined: bool, body: dict[str, Any]) -> None:
        user = body["user_id"]
        assert user != self.user
        before = self._present.get(user, False if self._knows_all else None)
        assert before is not joined, (self.session.id, self.user, user, joined)
        self._present[user] = joined
        if self._knows_all:
            assert body["participant_count"] == 1 + sum(self._present.values())
