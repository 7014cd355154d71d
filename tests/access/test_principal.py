"""Tests that scopes and patterns authorize a principal."""

import math
from dataclasses import FrozenInstanceError, replace
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
    """A principal with these scopes and patterns."""
    return Principal("ann", "default", frozenset(scopes), 0.0, symbols, sessions)


@pytest.mark.parametrize("scope", Scope)
def test_scope_allows_only_itself(scope: Scope) -> None:
    ann = principal(scope)
    assert [each for each in Scope if ann.allows(each)] == [scope]
    ann.require(scope)
    for other in set(Scope) - {scope}:
        with pytest.raises(AccessError, match=f"needs the scope {other.value}") as caught:
            ann.require(other)
        assert caught.value.code is ErrorCode.AUTH_FORBIDDEN


def test_principal_is_immutable() -> None:
    ann = principal()
    with pytest.raises(FrozenInstanceError):
        ann.scopes = frozenset(Scope)  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        ann.more = True  # type: ignore[attr-defined]


def test_principal_without_patterns_is_unrestricted() -> None:
    ann = principal()
    assert ann.may_use_symbol("BTCUSDT")
    assert ann.may_join("job:42")


def test_symbols_and_sessions_are_restricted_separately() -> None:
    ann = principal(symbols=("BTC*",), sessions=("job:*",))
    assert ann.may_use_symbol("BTCUSDT")
    assert not ann.may_use_symbol("ETHUSDT")
    assert ann.may_join("job:42")
    assert not ann.may_join("thread:7")
    assert not ann.may_join("BTCUSDT")


def test_any_of_several_patterns_allows() -> None:
    ann = principal(sessions=("job:?", "thread:7"))
    assert [name for name in ("job:1", "job:12", "thread:7") if ann.may_join(name)] == [
        "job:1",
        "thread:7",
    ]


@pytest.mark.parametrize(
    ("pattern", "match", "mismatch"),
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
def test_pattern_matches_like_a_glob(pattern: str, match: str, mismatch: str) -> None:
    ann = principal(sessions=(pattern,))
    assert ann.may_join(match)
    assert not ann.may_join(mismatch)


LETTERS = st.text(alphabet="ab-[]!*?^&|~\\.", max_size=12)


@given(LETTERS, LETTERS)
def test_patterns_match_like_fnmatch(pattern: str, name: str) -> None:
    assert principal(symbols=(pattern,)).may_use_symbol(name) == fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    "pattern", ["*a" * 64, "*" * 127 + "b", "*?" * 63 + "b", "*[ab]" * 25 + "*b", "a*" * 63 + "b"]
)
def test_hostile_pattern_does_not_backtrack(pattern: str) -> None:
    ann = principal(sessions=(pattern,))
    began = process_time()
    assert not ann.may_join("a" * 128 + "c")
    # Backtracking over every star would practically never end.
    assert process_time() - began < 1


def test_anonymous_principal_may_only_read_the_market() -> None:
    principal = anonymous()
    assert principal.anonymous
    assert principal.scopes == {Scope.MARKET_READ}
    assert principal.expires_at == math.inf


def test_anonymous_principals_are_different_users() -> None:
    names = sorted(anonymous().user_id for _ in range(100))
    assert all(one != next_one for one, next_one in pairwise(names))


def test_publisher_narrowed_to_symbols_reaches_only_named_users() -> None:
    ann = principal(Scope.MARKET_PUBLISH)
    assert ann.may_publish_to("bob")
    assert not replace(ann, symbols=("*",)).may_publish_to("bob")
    assert replace(ann, symbols=()).may_publish_to("ann")
    desk = replace(ann, symbols=("BTC*",), users=("b*",))
    assert desk.may_publish_to("bob")
    assert not replace(desk, symbols=None).may_publish_to("cid")
    assert replace(desk, users=()).may_publish_to("ann")
