"""The goals, judged by number: each value beside its bound, met or missed."""

from collections.abc import Iterable
from typing import NamedTuple


class Verdict(NamedTuple):
    """One value of a goal."""

    number: str
    what: str
    value: float
    bound: float
    met: bool
    is_minimum: bool

    def __str__(self) -> str:
        sense = "at least" if self.is_minimum else "at most"
        state = "met" if self.met else "MISSED"
        return f"{self.number} {self.what}: {self.value:,.2f} of {sense} {self.bound:,.2f}: {state}"


def at_most(number: str, what: str, value: float, bound: float) -> Verdict:
    """Judge a value that must stay within its bound."""
    return Verdict(number, what, value, bound, value <= bound, is_minimum=False)


def at_least(number: str, what: str, value: float, bound: float) -> Verdict:
    """Judge a value that must reach its bound."""
    return Verdict(number, what, value, bound, value >= bound, is_minimum=True)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """1 if a goal is missed."""
    return int(not all(verdict.met for verdict in verdicts))
