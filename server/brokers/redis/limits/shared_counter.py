"""What a node has of the places of one address or user, and what it asks for."""

import asyncio
from collections.abc import Callable

from server.core.errors import LimitError
from server.core.limits.keys import Quota, connects_too_often


class Ask:
    """One connection that wants a place; None is the answer that it has one."""

    __slots__ = ("answer", "attempted", "placed")

    def __init__(self) -> None:
        self.answer: asyncio.Future[LimitError | None] = asyncio.get_running_loop().create_future()
        # Whether Redis has counted the attempt.
        self.attempted = False
        # Whether it is one of those that this node has.
        self.placed = False


class Tally:
    """One question at a time is on its way, and whoever comes meanwhile is in the next one.

    So what is said is never overtaken, and may be what the node has and not what has changed.
    """

    __slots__ = ("_waiting", "asked", "has", "quota", "told", "told_at")

    def __init__(self, quota: Quota, now: float) -> None:
        self.quota = quota
        self.has = 0
        # What Redis thinks that this node has; None where nobody knows.
        self.told: int | None = 0
        self.told_at = now
        self._waiting: list[Ask] = []
        # Who is in the question that is on its way.
        self.asked: list[Ask] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is left to be remembered."""
        return self.has == self.told == 0 and self.asked is None and not self._waiting

    def wait(self, ask: Ask) -> None:
        """It is in the next question."""
        self._waiting.append(ask)

    def question(self) -> list[Ask] | None:
        """Who is in a question that is to be asked now; None where there is none."""
        if self.asked is not None:
            return None
        # Some have gone, or did not want to wait so long.
        asks = [each for each in self._waiting if not each.answer.done()]
        self._waiting.clear()
        return asks if asks or self.told != self.has else None

    def let_go(self) -> list[Ask]:
        """No answer is to be had: who has not got one yet."""
        asks, self.asked = [*(self.asked or ()), *self._waiting], None
        self._waiting.clear()
        return [each for each in asks if not each.answer.done()]

    def place(self, ask: Ask) -> None:
        """It is one of ours."""
        if self.quota.connections:
            self.has += 1
        ask.placed = True
        ask.answer.set_result(None)

    def give(self) -> None:
        """One of ours has gone."""
        if self.quota.connections:
            self.has -= 1

    def heard(
        self,
        said: int,
        granted: int,
        within: int,
        wait_ms: int,
        *,
        again: bool,
        full: Callable[[], LimitError],
    ) -> None:
        """Answer who was asked for; who found no place is asked for `again` where that may help."""
        asks, self.asked = self.asked or [], None
        self.told = said + granted if self.quota.connections else 0
        within += sum(each.attempted for each in asks)
        for number, ask in enumerate(asks):
            if ask.placed:
                # It had waited for long enough, and was let in meanwhile.
                granted -= 1
            elif ask.answer.done():
                # It has gone. What was granted is told back, for it is not what we have.
                continue
            elif granted > 0:
                granted -= 1
                self.place(ask)
            elif number >= within:
                ask.answer.set_result(connects_too_often(wait_ms))
            elif again:
                ask.attempted = True
                self._waiting.append(ask)
            else:
                ask.answer.set_result(full())
