"""Which tokens revocations refuse."""

from dataclasses import dataclass, replace

import pytest

from server.core.errors import AccessError
from server.core.revocations import Revocation, Revocations


@dataclass(frozen=True, slots=True)
class Token:
    org: str = "acme"
    user_id: str = "ann"
    issued_at: float = 100.0
    token_id: str | None = "t1"


OF_USER = Revocation("acme", "ann", None, 200.0, 1000.0)
OF_TOKEN = Revocation("acme", None, "t1", None, 1000.0)


def is_refused(revocations: Revocations, token: Token) -> bool:
    try:
        revocations.check(token)
    except AccessError as error:
        return error.code == "auth.revoked"
    return False


def test_nothing_is_refused_without_revocations() -> None:
    assert not is_refused(Revocations(), Token())


def test_user_is_refused_with_tokens_issued_before() -> None:
    revocations = Revocations()
    revocations.put(OF_USER)
    assert is_refused(revocations, Token())
    assert is_refused(revocations, Token(issued_at=0.0, token_id=None))
    assert not is_refused(revocations, Token(issued_at=200.0))
    assert not is_refused(revocations, Token(user_id="bob"))
    assert not is_refused(revocations, Token(org="other"))


def test_token_is_refused_by_its_id_alone() -> None:
    revocations = Revocations()
    revocations.put(OF_TOKEN)
    assert is_refused(revocations, Token())
    assert is_refused(revocations, Token(user_id="bob"))
    assert not is_refused(revocations, Token(token_id="t2"))
    assert not is_refused(revocations, Token(token_id=None))
    assert not is_refused(revocations, Token(org="other"))


def test_token_revoked_before_a_time_is_accepted_if_it_is_newer() -> None:
    revocations = Revocations()
    revocations.put(replace(OF_TOKEN, before=50.0))
    assert not is_refused(revocations, Token())


def test_newer_revocation_replaces_the_one_of_the_same_user() -> None:
    revocations = Revocations()
    revocations.put(OF_USER)
    revocations.put(replace(OF_USER, before=300.0))
    assert len(revocations) == revocations.count_of("acme") == 1
    assert is_refused(revocations, Token(issued_at=250.0))


@pytest.mark.parametrize("revocation", [OF_USER, OF_TOKEN])
def test_removed_revocation_leaves_nothing_behind(revocation: Revocation) -> None:
    revocations = Revocations()
    revocations.put(revocation)
    revocations.remove(revocation.id)
    revocations.remove(revocation.id)
    assert not is_refused(revocations, Token())
    assert len(revocations) == revocations.count_of("acme") == 0


def test_page_has_the_revocations_of_one_org_in_order() -> None:
    revocations = Revocations()
    for number in range(5):
        revocations.put(replace(OF_USER, user_id=f"user{number}"))
    revocations.put(replace(OF_USER, org="other"))
    first = revocations.page("acme", "", 3)
    rest = revocations.page("acme", first[-1].id, 3)
    assert len(first) == 3
    assert len(rest) == 2
    assert [each.id for each in (*first, *rest)] == sorted(each.id for each in (*first, *rest))
    assert revocations.get("acme", first[0].id) == first[0]
    assert revocations.get("other", first[0].id) is None
