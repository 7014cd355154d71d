"""A principal may do what its scopes and patterns say, and nothing else."""

import math
from dataclasses import FrozenInstanceError
from fnmatch import fnmatchcase
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.contract import ErrorCode, Scope
from server.access import Principal, anonymous
from server.core.errors import AccessError


def principal(
    *scopes: Scope,
    symbols: tuple[str, ...] | None = None,
    sessions: tuple[str, ...] | None = None,
) -> Principal:
    """Ann, with these rights."""
    return Principal("ann", "default", frozenset(scopes), 0.0, symbols, sessions)


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_allows_itself_and_no_other(scope: Scope) -> None:
    ann = principal(scope)
    assert [each for each in Scope if ann.allows(each)] == [scope]
    ann.require(scope)
    for other in set(Scope) - {scope}:
        with pytest.raises(AccessError, match=f"needs the scope {other.value}") as caught:
            ann.require(other)
        assert caught.value.code is ErrorCode.AUTH_FORBIDDEN


def test_a_principal_cannot_be_changed() -> None:
    ann = principal()
    with pytest.raises(FrozenInstanceError):
        ann.scopes = frozenset(Scope)  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        ann.more = True  # type: ignore[attr-defined]


def test_without_patterns_nothing_is_narrowed() -> None:
    ann = principal()
    assert ann.may_use_symbol("BTCUSDT")
    assert ann.may_join("job:42")


def test_symbols_and_sessions_are_narrowed_apart() -> None:
    ann = principal(symbols=("BTC*",), sessions=("job:*",))
    assert ann.may_use_symbol("BTCUSDT")
    assert not ann.may_use_symbol("ETHUSDT")
    assert ann.may_join("job:42")
    assert not ann.may_join("thread:7")
    assert not ann.may_join("BTCUSDT")


def test_one_pattern_of_several_is_enough() -> None:
    ann = principal(sessions=("job:?", "thread:7"))
    assert [name for name in ("job:1", "job:12", "thread:7") if ann.may_join(name)] == [
        "job:1",
        "thread:7",
    ]


@pytest.mark.parametrize(
    ("pattern", "takes", "leaves"),
    [
        ("job:*", "job:", "xjob:1"),
        ("job:?", "job:1", "job:"),
        ("job:[0-4]", "job:3", "job:5"),
        ("job:[!0-4]", "job:5", "job:3"),
        ("job.1", "job.1", "jobx1"),
        ("job+", "job+", "jobb"),
        ("(a|b)", "(a|b)", "a"),
        ("Job", "Job", "job"),
        ("a[", "a[", "a"),
        ("", "", "a"),
        ("a*b*c", "a.b.b.c", "a.c.b"),
        ("job:1", "job:1", "job:1\n"),
        (r"\w", r"\w", "a"),
    ],
)
def test_a_pattern_takes_what_it_says(pattern: str, takes: str, leaves: str) -> None:
    ann = principal(sessions=(pattern,))
    assert ann.may_join(takes)
    assert not ann.may_join(leaves)


LETTERS = st.text(alphabet="ab-[]!*?^&|~\\.", max_size=12)


@given(LETTERS, LETTERS)
def test_patterns_mean_what_the_shell_means(pattern: str, name: str) -> None:
    assert principal(symbols=(pattern,)).may_use_symbol(name) == fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    "pattern", ["*a" * 64, "*" * 127 + "b", "*?" * 63 + "b", "*[ab]" * 25 + "*b", "a*" * 63 + "b"]
)
def test_a_hostile_pattern_costs_no_more_than_a_moment(pattern: str) -> None:
    ann = principal(sessions=(pattern,))
    began = process_time()
    assert not ann.may_join("a" * 128 + "c")
    # A pattern that backtracks over each of its stars would outlive the sun.
    assert process_time() - began < 1


def test_somebody_without_a_token_may_read_the_market_for_ever_and_nothing_else() -> None:
    nobody = anonymous()
    assert nobody.anonymous
    assert nobody.scopes == {Scope.MARKET_READ}
    assert nobody.expires_at == math.inf


def test_people_without_a_token_are_not_one_user() -> None:
    names = sorted(anonymous().user_id for _ in range(100))
    assert all(one != next_one for one, next_one in pairwise(names))
