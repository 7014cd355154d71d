"""Wills: messages to publish once a user has been without a connection for a given time."""

from dataclasses import dataclass, field

from server.core.deadlines import Deadlines
from server.core.limits.shares import Owner, ShareLimits, Shares

User = tuple[str, str]

# What a will costs besides its messages.
WILL_BYTES = 512
# A will that could not be published is due again after this.
RETRY_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Will:
    """One user's will; `messages` is a JSON list of publications, each with an id."""

    org: str
    user_id: str
    id: str
    after_ms: int
    # Not for logs.
    messages: bytes = field(repr=False)

    @property
    def user(self) -> User:
        """The org and the user id."""
        return self.org, self.user_id

    @property
    def size_bytes(self) -> int:
        """What it counts for in its org's share."""
        return len(self.messages) + WILL_BYTES


class Wills:
    """At most one will for each user, bounded by org and in total."""

    def __init__(self, limits: ShareLimits) -> None:
        self._wills: dict[User, Will] = {}
        self._shares: Shares[User] = Shares(limits)
        self._due: Deadlines[User] = Deadlines()

    def __len__(self) -> int:
        return len(self._wills)

    def get(self, user: User) -> Will | None:
        """The will of a user, None if there is none."""
        return self._wills.get(user)

    def put(self, will: Will) -> None:
        """Set or replace a will; raises `LimitError`, and changes nothing, beyond a share."""
        owner, previous = Owner(*will.user), self._wills.get(will.user)
        self._shares.put(owner, will.user, will.size_bytes)
        surplus = self._shares.surplus(owner)
        if surplus is not None:
            if previous is None:
                self._shares.remove(owner, will.user)
            else:
                self._shares.put(owner, will.user, previous.size_bytes)
            raise surplus.error("wills")
        self._wills[will.user] = will

    def remove(self, user: User) -> Will | None:
        """Take back a will; returns it, None if there is none."""
        will = self._wills.pop(user, None)
        if will is not None:
            self._shares.remove(Owner(*user), user)
            self._due.cancel(user)
        return will

    def on_left(self, user: User, gone_at: float) -> None:
        """The user's last connection ended at this time."""
        will = self._wills.get(user)
        if will is not None:
            self._due.set(user, gone_at + will.after_ms / 1000)

    def on_back(self, user: User, *, resumed: bool) -> Will | None:
        """The user is back: takes back a will that was counting, unless a connection resumed.

        Returns the will that is taken back.
        """
        if user not in self._due:
            return None
        self._due.cancel(user)
        return None if resumed else self.remove(user)

    def is_counting(self, user: User) -> bool:
        """Whether the time of the user's will runs."""
        return user in self._due

    def take_due(self, now: float) -> list[Will]:
        """The wills to publish now; each is due again later, until it is removed."""
        due = [self._wills[user] for user in self._due.pop_due(now)]
        for will in due:
            self._due.set(will.user, now + RETRY_SECONDS)
        return due
