"""Tickets: a secret for its owner alone, for so long, and for so many."""

from server.core.recovery.tickets import ResumeTickets, node_of

ANN, BOB = ("default", "ann"), ("default", "bob")


def tickets(max_parked: int = 10, per_owner: int = 10) -> ResumeTickets:
    return ResumeTickets(window_seconds=60, max_parked=max_parked, max_parked_per_owner=per_owner)


def test_a_secret_is_its_owners_alone_and_none_is_like_another() -> None:
    desk = tickets()
    secret, other = desk.issue("c1", ANN), desk.issue("c2", ANN)
    assert secret != other
    assert len(secret) >= 20
    found = desk.find(secret, ANN)
    assert found is not None
    assert found.connection_id == "c1"
    assert desk.find(secret, BOB) is None
    assert desk.find(secret, ("acme", "ann")) is None
    assert desk.find("nonsense", ANN) is None


def test_a_connection_has_so_much_time_to_come_back() -> None:
    desk = tickets()
    secret = desk.issue("c1", ANN)
    assert not desk.park("unknown", 0)
    assert desk.park("c1", 100)
    assert (desk.parked_count, desk.parked_of(ANN), desk.expired(159.9)) == (1, ("c1",), [])
    assert desk.expired(160) == ["c1"]
    desk.resume("c1")
    assert (desk.parked_count, desk.parked_of(ANN), desk.expired(1000)) == (0, (), [])
    assert desk.find(secret, ANN) is not None, "and once more"
    desk.park("c1", 200)
    assert desk.expired(259) == []


def test_the_oldest_makes_room_of_the_same_owner_first() -> None:
    desk = tickets(max_parked=3, per_owner=2)
    for name in ("b1", "a1", "a2", "a3"):
        desk.issue(name, BOB if name == "b1" else ANN)
        desk.park(name, 0)
        for each in desk.pop_evicted():
            assert each == "a1"
            desk.remove(each)
    assert desk.pop_evicted() == []
    desk.issue("c1", ("default", "carl"))
    desk.park("c1", 1)
    assert desk.pop_evicted() == ["b1"]


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    desk = tickets()
    for name in ("c1", "c2"):
        desk.issue(name, ANN)
    desk.park("c1", 0)
    for name in ("c1", "c2", "c2", "unknown"):
        desk.remove(name)
    assert (len(desk), desk.parked_count, desk._parked_by_owner, desk._by_pid) == (0, 0, {}, {})


def test_where_there_are_several_nodes_a_secret_names_its_own_and_goes_on_at_any() -> None:
    one, other = (
        ResumeTickets(window_seconds=60, max_parked=10, max_parked_per_owner=10, node=node)
        for node in ("n1", "n2")
    )
    secret = one.issue("c1", ANN)
    assert (node_of(secret), node_of(tickets().issue("c1", ANN))) == ("n1", "")
    one.park("c1", 0)
    assert [each.connection_id for each in one.parked()] == ["c1"]
    assert one.remove("c1") is not None
    assert one.remove("c1") is None
    other.adopt(secret, "c1", ANN, 100)
    adopted = other.find(secret, ANN)
    assert adopted is not None
    assert other.find(secret, BOB) is None
    assert (adopted.expires_at, other.expired(159), other.expired(160)) == (160, [], ["c1"])
