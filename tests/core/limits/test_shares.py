"""Shares: no org and no publisher takes what another holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.limits.shares import SERVER, Level, Owner, Quota, ShareLimits, Shares, Surplus

ANN, BOB, EVE = Owner("acme", "ann"), Owner("acme", "bob"), Owner("evil", "eve")
LIMITS = ShareLimits(Quota(10, 1000), Quota(6, 600), Quota(4, 400))


def shares_of(*items: tuple[Owner, str, int], limits: ShareLimits = LIMITS) -> Shares[str]:
    shares: Shares[str] = Shares(limits)
    for owner, name, size_bytes in items:
        shares.put(owner, name, size_bytes)
    return shares


def surplus_of(shares: Shares[str], owner: Owner) -> Surplus[str]:
    surplus = shares.surplus(owner)
    assert surplus is not None
    return surplus


def many(owner: Owner, count: int, size_bytes: int = 1) -> list[tuple[Owner, str, int]]:
    return [(owner, f"{owner.user_id}{number}", size_bytes) for number in range(count)]


def test_publisher_gives_way_within_its_own_items() -> None:
    surplus = surplus_of(shares_of(*many(BOB, 2), *many(ANN, 5)), ANN)
    assert (surplus.level, surplus.limit, surplus.owner) == (Level.PUBLISHER, 4, ANN)
    assert list(surplus.names) == ["ann0", "ann1", "ann2", "ann3", "ann4"]
    error = surplus.error("topics")
    assert (error.code, error.message) == (
        "limit.share",
        "a publisher may keep at most 4 topics",
    )


def test_largest_publisher_of_an_org_gives_way() -> None:
    surplus = surplus_of(shares_of(*many(EVE, 1), *many(BOB, 4), *many(ANN, 3)), ANN)
    assert (surplus.level, surplus.owner) == (Level.ORG, BOB)
    assert surplus.error("topics").code == "limit.share"


def test_largest_org_gives_way_to_a_smaller_one() -> None:
    others = [item for org in "bcd" for item in many(Owner(org, org), 2)]
    shares = shares_of(*many(EVE, 4), *others, (ANN, "first", 1))
    surplus = surplus_of(shares, ANN)
    assert (surplus.level, surplus.owner) == (Level.SERVER, EVE)
    assert surplus.error("topics").code == "server.overloaded"


def test_who_has_the_most_items_gives_way_to_a_limit_in_number() -> None:
    # Bob's one item is larger than all of ann's.
    surplus = surplus_of(shares_of((BOB, "big", 300), *many(ANN, 4), *many(BOB, 2)), ANN)
    assert (surplus.level, surplus.in_bytes, surplus.owner) == (Level.ORG, False, ANN)
    others = [item for org in "bcdefg" for item in many(Owner(org, org), 1)]
    surplus = surplus_of(shares_of((EVE, "big", 400), *many(ANN, 4), *others), ANN)
    assert (surplus.level, surplus.in_bytes, surplus.owner) == (Level.SERVER, False, ANN)


def test_who_has_the_most_bytes_gives_way_to_a_limit_in_bytes() -> None:
    surplus = surplus_of(shares_of((BOB, "big", 400), *many(ANN, 4), (ANN, "ann0", 300)), ANN)
    assert (surplus.level, surplus.in_bytes, surplus.owner) == (Level.ORG, True, BOB)


def test_bytes_count_as_well_as_items() -> None:
    surplus = surplus_of(shares_of((ANN, "a", 200), (ANN, "b", 300)), ANN)
    assert surplus.error("topics").message == "a publisher may keep at most 400 bytes of topics"


def test_server_itself_is_bound_by_the_total_alone() -> None:
    shares = shares_of(*many(SERVER, 10))
    assert shares.surplus(SERVER) is None
    shares.put(SERVER, "more", 1)
    assert surplus_of(shares, SERVER).level is Level.SERVER


def test_put_moves_an_item_to_the_end_and_tells_growth() -> None:
    shares = shares_of((ANN, "a", 100), (ANN, "b", 100))
    assert not shares.put(ANN, "a", 100)
    assert not shares.put(ANN, "a", 50)
    assert shares.put(ANN, "c", 1)
    assert shares.put(ANN, "b", 350)
    assert list(surplus_of(shares, ANN).names) == ["a", "c", "b"]


def test_removing_an_unknown_item_raises() -> None:
    shares = shares_of((ANN, "a", 1))
    shares.remove(ANN, "a")
    for owner in (ANN, EVE):
        with pytest.raises(KeyError):
            shares.remove(owner, "a")


OWNERS = (ANN, BOB, EVE, SERVER)


@given(
    st.lists(
        st.tuples(st.sampled_from(OWNERS), st.sampled_from("abcdefgh"), st.integers(0, 300)),
        max_size=60,
    )
)
def test_items_stay_within_every_limit_if_the_surplus_goes(
    puts: list[tuple[Owner, str, int]],
) -> None:
    shares: Shares[str] = Shares(LIMITS)
    held: dict[tuple[Owner, str], int] = {}
    for owner, name, size_bytes in puts:
        if size_bytes:
            shares.put(owner, name, size_bytes)
            held[owner, name] = size_bytes
        elif (owner, name) in held:
            shares.remove(owner, name)
            del held[owner, name]
        while (surplus := shares.surplus(owner)) is not None:
            oldest = next(iter(surplus.names))
            shares.remove(surplus.owner, oldest)
            del held[surplus.owner, oldest]
        assert (shares.count, shares.size_bytes) == (len(held), sum(held.values()))
        assert shares.count <= 10
        for each in (ANN, EVE):
            mine = [size for key, size in held.items() if key[0] == each]
            org = [size for key, size in held.items() if key[0].org == each.org]
            assert len(mine) <= 4
            assert sum(mine) <= 400
            assert len(org) <= 6
            assert sum(org) <= 600
