"""What a node owes Redis: the sessions it looks after, and what it could not say yet."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.core.deadlines import Deadlines
from server.core.sessions.records import SessionKey

Place = tuple[str, SessionKey]


@dataclass(slots=True, eq=False)
class Duty:
    """One session that this node looks after: its connections there, and what it is."""

    seats: dict[str, str] = field(default_factory=dict)
    facts: bytes = b""
    made: bytes = b""
    due: float | None = None
    # Whether Redis knows of it, so that others take over when this node dies.
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Debt:
    """A connection is back, or has gone; its user where it was known to be in."""

    user_id: str | None
    back: bool = False
    lost: bool = False


class Duties:
    """No I/O: it is told what was said and what happened, and tells what is to be said."""

    def __init__(self) -> None:
        self._duties: dict[SessionKey, Duty] = {}
        self._deadlines: Deadlines[SessionKey] = Deadlines()
        # The last word on each connection that Redis has not heard yet.
        self.debts: dict[Place, Debt] = {}
        # Those who were cut off, until their users are given up: if Redis forgets them meanwhile,
        # it has to be told once more.
        self._away: OrderedDict[Place, tuple[str, float]] = OrderedDict()
        # Not looked after any more, which Redis does not know yet.
        self.unlisted: dict[SessionKey, None] = {}

    def __len__(self) -> int:
        return len(self._duties)

    def get(self, key: SessionKey) -> Duty | None:
        """One that is looked after here."""
        return self._duties.get(key)

    def take(self, key: SessionKey) -> Duty:
        """Look after a session."""
        duty = self._duties.get(key)
        if duty is None:
            duty = self._duties[key] = Duty()
            self.unlisted.pop(key, None)
        return duty

    def all(self) -> tuple[tuple[SessionKey, Duty], ...]:
        """Everything that is looked after here."""
        return tuple(self._duties.items())

    def to_list(self) -> tuple[tuple[SessionKey, Duty], ...]:
        """Those that Redis does not know of yet."""
        return tuple((key, duty) for key, duty in self._duties.items() if not duty.listed)

    def unlist_all(self) -> None:
        """Redis knows of none any more."""
        for duty in self._duties.values():
            duty.listed = False

    def set_due(self, key: SessionKey, due: float | None) -> None:
        """When it has to be looked at again, if ever."""
        if due is not None:
            self.take(key).due = due
            self._deadlines.set(key, due)
            return
        self._deadlines.cancel(key)
        duty = self._duties.get(key)
        if duty is not None:
            duty.due = None
            self.tidy(key)

    def tidy(self, key: SessionKey) -> None:
        """Look after it no more, where nobody of here is in it and nothing is due."""
        duty = self._duties.get(key)
        if duty is not None and not duty.seats and duty.due is None:
            del self._duties[key]
            self.unlisted[key] = None

    def due(self, now: float) -> list[SessionKey]:
        """The sessions that have to be looked at now."""
        while self._away and next(iter(self._away.values()))[1] <= now:
            self._away.popitem(last=False)
        return self._deadlines.due(now)

    # --- connections

    def seat(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        """It is in."""
        self.take(key).seats[connection_id] = user_id
        self._away.pop((connection_id, key), None)

    def unseat(self, connection_id: str, key: SessionKey) -> str | None:
        """It is out; whose it was."""
        duty = self._duties.get(key)
        return None if duty is None else duty.seats.pop(connection_id, None)

    def empty(self, key: SessionKey) -> None:
        """Nobody of here is in it any more."""
        duty = self._duties.get(key)
        if duty is not None:
            duty.seats.clear()

    def owe(self, place: Place, debt: Debt) -> None:
        """It has to be said, and replaces what was to be said before."""
        self.debts.pop(place, None)
        self.debts[place] = debt

    def owe_again(self, place: Place, debt: Debt) -> None:
        """It could not be said; something newer holds."""
        self.debts.setdefault(place, debt)

    def lose(self, place: Place, user_id: str, until: float) -> None:
        """Its user may be back until then."""
        self._away[place] = (user_id, until)

    def known(self) -> dict[SessionKey, dict[str, str]]:
        """Whoever Redis should know to be in a session, or to have been until a moment ago."""
        known = {key: dict(duty.seats) for key, duty in self._duties.items()}
        for (connection_id, key), (user_id, _) in self._away.items():
            known.get(key, {}).setdefault(connection_id, user_id)
        for (connection_id, key), debt in self.debts.items():
            there = known.get(key, {})
            if debt.back:
                there.pop(connection_id, None)
            elif debt.user_id is not None:
                there.setdefault(connection_id, debt.user_id)
        return known

    def lost_again(self, key: SessionKey, connections: Mapping[str, str]) -> None:
        """Redis had forgotten them and knows them to be in: who was cut off is waited for anew."""
        for connection_id, user_id in connections.items():
            if (connection_id, key) in self._away:
                self.owe_again((connection_id, key), Debt(user_id, lost=True))
