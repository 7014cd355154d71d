"""The registry of connections: every index agrees after any sequence."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from server.core.connections import ConnectionManager, ConnectionRecord
from server.core.errors import RequestError

NOW = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(
    connection_id: str = "c1", user_id: str = "ann", org: str = "acme", **more: Any
) -> ConnectionRecord:
    """A connection with defaults for the other fields."""
    fields = {
        "namespace": "/market",
        "device_id": f"device of {connection_id}",
        "ip": "192.0.2.1",
        "connected_at": NOW,
        "expires_at": 100.0,
        **more,
    }
    return ConnectionRecord(connection_id=connection_id, user_id=user_id, org=org, **fields)


@pytest.mark.behaviour("B9")
@pytest.mark.behaviour("D4")
def test_new_manager_is_empty_and_independent() -> None:
    one, other = ConnectionManager(), ConnectionManager()
    one.add(record())
    assert len(one) == 1
    assert len(other) == 0
    assert other.connections() == ()
    assert other.orgs() == ()
    assert other.stats() == {"connections": 0, "users": 0, "orgs": 0, "devices": 0}


@pytest.mark.behaviour("B10")
@pytest.mark.behaviour("D17")
@pytest.mark.behaviour("D18")
@pytest.mark.behaviour("D3")
def test_connection_is_found_by_id_and_by_user() -> None:
    manager = ConnectionManager()
    added = manager.add(record(session_id="job:1", metadata={"client": "desk"}))
    assert manager.get("c1") == added
    assert manager.connections_of("acme", "ann") == (added,)
    assert manager.users("acme") == ("ann",)
    assert manager.orgs() == ("acme",)
    assert "c1" in manager
    assert manager.connections_of("acme", "ann")[0].metadata == {"client": "desk"}
    assert manager.get("c2") is None
    assert manager.connections_of("other", "ann") == ()


@pytest.mark.behaviour("A2")
@pytest.mark.behaviour("D5")
@pytest.mark.behaviour("B14")
@pytest.mark.behaviour("B11")
@pytest.mark.behaviour("A4")
@pytest.mark.behaviour("A5")
@pytest.mark.behaviour("B15")
def test_user_stays_until_the_last_device_disconnects() -> None:
    manager = ConnectionManager()
    manager.add(record("c1", device_id="desk"))
    manager.add(record("c2", device_id="desk", namespace="/session"))
    manager.add(record("c3", device_id="phone"))
    counts = [len(manager)]
    assert manager.devices_of("acme", "ann") == ("desk", "phone")
    for gone, devices in (("c1", ("desk", "phone")), ("c2", ("phone",)), ("c3", ())):
        removed = manager.remove(gone)
        assert removed is not None
        assert removed.connection_id == gone
        counts.append(len(manager))
        assert manager.devices_of("acme", "ann") == devices
        assert gone not in [each.connection_id for each in manager.connections_of("acme", "ann")]
    assert counts == [3, 2, 1, 0]
    assert manager.users("acme") == ()
    assert manager.orgs() == ()


@pytest.mark.behaviour("B12")
def test_users_of_the_same_name_in_two_orgs_are_separate() -> None:
    manager = ConnectionManager()
    manager.add(record("c1", "ann", "acme"))
    manager.add(record("c2", "ann", "other"))
    manager.add(record("c3", "bob", "acme"))
    assert [each.connection_id for each in manager.connections_of("acme", "ann")] == ["c1"]
    assert [each.connection_id for each in manager.connections_of("other", "ann")] == ["c2"]
    assert manager.users("acme") == ("ann", "bob")


@pytest.mark.behaviour("A3")
@pytest.mark.behaviour("D6")
def test_removing_an_unknown_connection_is_a_no_op() -> None:
    manager = ConnectionManager()
    manager.add(record())
    assert manager.remove("nobody") is None
    manager.remove("c1")
    assert manager.remove("c1") is None
    assert len(manager) == 0


@pytest.mark.behaviour("D33")
def test_connection_id_in_use_is_refused() -> None:
    manager = ConnectionManager()
    first = manager.add(record("c1", "ann"))
    with pytest.raises(RequestError, match="c1 is taken"):
        manager.add(record("c1", "bob", "other"))
    assert manager.connections() == (first,)
    assert manager.users("other") == ()


@pytest.mark.behaviour("D34")
@pytest.mark.behaviour("D35")
@pytest.mark.parametrize("field", ["connection_id", "user_id", "org", "namespace", "device_id"])
@pytest.mark.parametrize("value", ["", None, 7])
def test_connection_without_a_required_id_is_refused(field: str, value: object) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(RequestError, match=field):
        record(**fields)


@pytest.mark.behaviour("D1")
@pytest.mark.behaviour("D2")
def test_records_compare_by_value_and_have_a_repr() -> None:
    first = record()
    assert first.session_id is None
    assert first.metadata == {}
    assert first == record()
    assert first != record(session_id="job:1")
    assert "c1" in repr(first)
    assert "ann" in repr(first)
    assert len({first, record(), record("c2")}) == 2


def test_repr_of_a_record_hides_its_metadata() -> None:
    assert "hunter2" not in repr(record(metadata={"password": "hunter2"}))


@pytest.mark.behaviour("D7")
def test_returned_values_cannot_change_the_registry() -> None:
    manager = ConnectionManager()
    metadata = {"client": "desk"}
    manager.add(record(metadata=metadata))
    metadata["client"] = "another"
    returned = manager.get("c1")
    assert returned is not None
    assert returned.metadata == {"client": "desk"}
    with pytest.raises(TypeError):
        returned.metadata["client"] = "another"  # type: ignore[index]
    connections = manager.connections()
    manager.remove("c1")
    assert len(connections) == 1


@pytest.mark.behaviour("D50")
def test_times_need_a_zone_and_become_utc() -> None:
    with pytest.raises(RequestError, match="time zone"):
        record(connected_at=NOW.replace(tzinfo=None))
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    kept = record(connected_at=elsewhere).connected_at
    assert kept == NOW
    assert kept.tzinfo is UTC


def test_renew_sets_the_expiry_of_a_connection() -> None:
    manager = ConnectionManager()
    manager.add(record())
    assert manager.renew("c1", 250.0).expires_at == 250.0
    [found] = manager.connections_of("acme", "ann")
    assert found.expires_at == 250.0


class Counting(dict[Any, Any]):
    """A dict that counts the iterations of itself and of dicts in it."""

    iterations = 0

    def __init__(self, plain: dict[Any, Any]) -> None:
        super().__init__(
            (key, Counting(value) if isinstance(value, dict) else value)
            for key, value in plain.items()
        )

    def __iter__(self) -> Any:
        Counting.iterations += 1
        return super().__iter__()

    def keys(self) -> Any:
        Counting.iterations += 1
        return super().keys()

    def values(self) -> Any:
        Counting.iterations += 1
        return super().values()

    def items(self) -> Any:
        Counting.iterations += 1
        return super().items()


@pytest.mark.behaviour("D41")
def test_no_operation_iterates_ten_thousand_connections() -> None:
    manager = ConnectionManager()
    for i in range(10_000):
        manager.add(record(f"c{i}", f"u{i % 2500}", f"o{i % 10}"))
    for name in ("_records", "_users", "_orgs", "_devices"):
        setattr(manager, name, Counting(getattr(manager, name)))
    Counting.iterations = 0
    manager.add(record("new", "u1", "o1"))
    manager.get("c77")
    manager.renew("c77", 1.0)
    manager.remove("c77")
    assert manager.stats() == {"connections": 10_000, "users": 2500, "orgs": 10, "devices": 10_000}
    assert Counting.iterations == 0
    # A result is iterated once: one user's connections, or ten orgs.
    assert len(manager.connections_of("o1", "u1")) == 5
    assert len(manager.devices_of("o1", "u1")) == 5
    assert len(manager.orgs()) == 10
    assert Counting.iterations == 3


class RegistryMachine(RuleBasedStateMachine):
    """Any sequence of operations, against a plain dict."""

    added = Bundle("added")

    def __init__(self) -> None:
        super().__init__()
        self.manager = ConnectionManager()
        self.model: dict[str, ConnectionRecord] = {}
        self.count = 0

    @rule(
        target=added,
        user=st.sampled_from(["ann", "bob", "ünal"]),
        org=st.sampled_from(["acme", "other"]),
        device=st.sampled_from(["desk", "phone"]),
    )
    def add(self, user: str, org: str, device: str) -> str:
        self.count += 1
        new = record(f"c{self.count}", user, org, device_id=device)
        self.manager.add(new)
        self.model[new.connection_id] = new
        return new.connection_id

    @rule(connection_id=consumes(added))
    def remove(self, connection_id: str) -> None:
        assert self.manager.remove(connection_id) == self.model.pop(connection_id)

    @rule(connection_id=added)
    def renew(self, connection_id: str) -> None:
        self.model[connection_id] = self.manager.renew(connection_id, float(self.count))

    @rule(connection_id=added)
    def add_again(self, connection_id: str) -> None:
        with pytest.raises(RequestError):
            self.manager.add(record(connection_id, "eve", "evil"))

    @rule()
    def remove_unknown(self) -> None:
        assert self.manager.remove("nobody") is None

    def teardown(self) -> None:
        """Every connection goes, and nothing is left."""
        for connection_id in self.model:
            self.manager.remove(connection_id)
        assert all(not index for index in vars(self.manager).values())

    @invariant()
    def indexes_agree(self) -> None:
        model = self.model.values()
        assert len(self.manager) == len(self.model)
        assert set(self.manager.connections()) == set(model)
        assert all(self.manager.get(each.connection_id) == each for each in model)
        orgs = {each.org for each in model}
        assert set(self.manager.orgs()) == orgs
        users = {(each.org, each.user_id) for each in model}
        for org in orgs:
            listed = self.manager.users(org)
            assert len(listed) == len(set(listed))
            assert {(org, user) for user in listed} == {each for each in users if each[0] == org}
        for org, user in users:
            mine = [each for each in model if (each.org, each.user_id) == (org, user)]
            assert sorted(each.connection_id for each in mine) == sorted(
                each.connection_id for each in self.manager.connections_of(org, user)
            )
            assert set(self.manager.devices_of(org, user)) == {each.device_id for each in mine}
        assert self.manager.stats() == {
            "connections": len(model),
            "users": len(users),
            "orgs": len(orgs),
            "devices": len({(each.org, each.user_id, each.device_id) for each in model}),
        }


TestRegistry = pytest.mark.behaviour("D45")(pytest.mark.behaviour("D44")(RegistryMachine.TestCase))
TestRegistry.settings = settings(max_examples=100, stateful_step_count=30)
