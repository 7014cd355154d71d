"""Resume tickets: valid for their owner, for a limited time, and bounded in number."""

from server.core.recovery.tickets import ResumeTickets, node_of

ANN, BOB = ("default", "ann"), ("default", "bob")


def make_tickets(max_parked: int = 10, per_owner: int = 10) -> ResumeTickets:
    return ResumeTickets(window_seconds=60, max_parked=max_parked, max_parked_per_owner=per_owner)


def test_pid_is_unique_and_valid_for_its_owner_alone() -> None:
    tickets = make_tickets()
    pid, other = tickets.issue("c1", ANN), tickets.issue("c2", ANN)
    assert pid != other
    assert len(pid) >= 20
    found = tickets.find(pid, ANN)
    assert found is not None
    assert found.connection_id == "c1"
    assert tickets.find(pid, BOB) is None
    assert tickets.find(pid, ("acme", "ann")) is None
    assert tickets.find("nonsense", ANN) is None


def test_parked_connection_expires_after_the_window() -> None:
    tickets = make_tickets()
    pid = tickets.issue("c1", ANN)
    assert not tickets.park("unknown", 0)
    assert tickets.park("c1", 100)
    assert (tickets.parked_count, tickets.parked_of(ANN), tickets.expired(159.9)) == (
        1,
        ("c1",),
        [],
    )
    assert tickets.expired(160) == ["c1"]
    tickets.resume("c1")
    assert (tickets.parked_count, tickets.parked_of(ANN), tickets.expired(1000)) == (0, (), [])
    assert tickets.find(pid, ANN) is not None, "a resumed connection keeps its ticket"
    tickets.park("c1", 200)
    assert tickets.expired(259) == []


def test_oldest_parked_connection_is_evicted_own_ones_first() -> None:
    tickets = make_tickets(max_parked=3, per_owner=2)
    for name in ("b1", "a1", "a2", "a3"):
        tickets.issue(name, BOB if name == "b1" else ANN)
        tickets.park(name, 0)
        for each in tickets.pop_evicted():
            assert each == "a1"
            tickets.remove(each)
    assert tickets.pop_evicted() == []
    tickets.issue("c1", ("default", "carl"))
    tickets.park("c1", 1)
    assert tickets.pop_evicted() == ["b1"]


def test_resumed_connection_is_not_evicted() -> None:
    tickets = make_tickets(max_parked=1)
    tickets.issue("a1", ANN)
    tickets.park("a1", 0)
    tickets.adopt("n2.pid", "b1", BOB, 0)
    tickets.resume("a1")
    assert tickets.pop_evicted() == []


def test_removed_ticket_leaves_nothing_behind() -> None:
    tickets = make_tickets()
    for name in ("c1", "c2"):
        tickets.issue(name, ANN)
    tickets.park("c1", 0)
    for name in ("c1", "c2", "c2", "unknown"):
        tickets.remove(name)
    assert (len(tickets), tickets.parked_count, tickets._parked_by_owner, tickets._by_pid) == (
        0,
        0,
        {},
        {},
    )


def test_pid_names_its_node_and_is_adopted_by_another() -> None:
    first, second = (
        ResumeTickets(window_seconds=60, max_parked=10, max_parked_per_owner=10, node=node)
        for node in ("n1", "n2")
    )
    pid = first.issue("c1", ANN)
    assert (node_of(pid), node_of(make_tickets().issue("c1", ANN))) == ("n1", "")
    first.park("c1", 0)
    assert [each.connection_id for each in first.parked()] == ["c1"]
    assert first.remove("c1") is not None
    assert first.remove("c1") is None
    second.adopt(pid, "c1", ANN, 100)
    adopted = second.find(pid, ANN)
    assert adopted is not None
    assert second.find(pid, BOB) is None
    assert (adopted.expires_at, second.expired(159), second.expired(160)) == (160, [], ["c1"])
