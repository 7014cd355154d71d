"""The registry: every index agrees, whatever happens."""

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
    """A connection, with what the test does not care for filled in."""
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
def test_a_new_manager_is_empty_and_shares_nothing_with_another() -> None:
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
def test_a_connection_is_found_by_its_id_and_by_its_user() -> None:
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
def test_one_user_on_several_devices_is_there_until_the_last_has_gone() -> None:
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
def test_users_and_orgs_of_the_same_name_are_kept_apart() -> None:
    manager = ConnectionManager()
    manager.add(record("c1", "ann", "acme"))
    manager.add(record("c2", "ann", "other"))
    manager.add(record("c3", "bob", "acme"))
    assert [each.connection_id for each in manager.connections_of("acme", "ann")] == ["c1"]
    assert [each.connection_id for each in manager.connections_of("other", "ann")] == ["c2"]
    assert manager.users("acme") == ("ann", "bob")


@pytest.mark.behaviour("A3")
@pytest.mark.behaviour("D6")
def test_removing_somebody_unknown_does_no_harm() -> None:
    manager = ConnectionManager()
    manager.add(record())
    assert manager.remove("nobody") is None
    manager.remove("c1")
    assert manager.remove("c1") is None
    assert len(manager) == 0


@pytest.mark.behaviour("D33")
def test_a_connection_id_cannot_be_used_twice_and_the_first_stays() -> None:
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
def test_a_connection_without_an_id_is_refused(field: str, value: object) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(RequestError, match=field):
        record(**fields)


@pytest.mark.behaviour("D1")
@pytest.mark.behaviour("D2")
def test_records_compare_by_value_and_print_what_they_are() -> None:
    plain = record()
    assert plain.session_id is None
    assert plain.metadata == {}
    assert plain == record()
    assert plain != record(session_id="job:1")
    assert "c1" in repr(plain)
    assert "ann" in repr(plain)
    assert len({plain, record(), record("c2")}) == 2


def test_what_a_client_says_of_itself_is_not_printed() -> None:
    assert "hunter2" not in repr(record(metadata={"password": "hunter2"}))


@pytest.mark.behaviour("D7")
def test_what_is_handed_out_cannot_change_the_registry() -> None:
    manager = ConnectionManager()
    mine = {"client": "desk"}
    manager.add(record(metadata=mine))
    mine["client"] = "another"
    handed_out = manager.get("c1")
    assert handed_out is not None
    assert handed_out.metadata == {"client": "desk"}
    with pytest.raises(TypeError):
        handed_out.metadata["client"] = "another"  # type: ignore[index]
    everybody = manager.connections()
    manager.remove("c1")
    assert len(everybody) == 1


@pytest.mark.behaviour("D50")
def test_times_without_a_zone_are_refused_and_others_become_utc() -> None:
    with pytest.raises(RequestError, match="time zone"):
        record(connected_at=NOW.replace(tzinfo=None))
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    kept = record(connected_at=elsewhere).connected_at
    assert kept == NOW
    assert kept.tzinfo is UTC


def test_a_newer_token_changes_when_a_connection_ends() -> None:
    manager = ConnectionManager()
    manager.add(record())
    assert manager.renew("c1", 250.0).expires_at == 250.0
    [found] = manager.connections_of("acme", "ann")
    assert found.expires_at == 250.0


class Counting(dict[Any, Any]):
    """A dict that counts how often it, or a dict in it, is walked."""

    walks = 0

    def __init__(self, plain: dict[Any, Any]) -> None:
        super().__init__(
            (key, Counting(value) if isinstance(value, dict) else value)
            for key, value in plain.items()
        )

    def __iter__(self) -> Any:
        Counting.walks += 1
        return super().__iter__()

    def keys(self) -> Any:
        Counting.walks += 1
        return super().keys()

    def values(self) -> Any:
        Counting.walks += 1
        return super().values()

    def items(self) -> Any:
        Counting.walks += 1
        return super().items()


@pytest.mark.behaviour("D41")
def test_with_ten_thousand_connections_no_operation_walks_them() -> None:
    manager = ConnectionManager()
    for i in range(10_000):
        manager.add(record(f"c{i}", f"u{i % 2500}", f"o{i % 10}"))
    for name in ("_records", "_users", "_orgs", "_devices"):
        setattr(manager, name, Counting(getattr(manager, name)))
    Counting.walks = 0
    manager.add(record("new", "u1", "o1"))
    manager.get("c77")
    manager.renew("c77", 1.0)
    manager.remove("c77")
    assert manager.stats() == {"connections": 10_000, "users": 2500, "orgs": 10, "devices": 10_000}
    assert Counting.walks == 0
    # What is handed out is walked once, and it is one user's or a list of ten.
    assert len(manager.connections_of("o1", "u1")) == 5
    assert len(manager.devices_of("o1", "u1")) == 5
    assert len(manager.orgs()) == 10
    assert Counting.walks == 3


class Registry(RuleBasedStateMachine):
    """Any sequence of operations, beside a list that is looked through."""

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
        """Everybody leaves, and nothing stays."""
        for connection_id in self.model:
            self.manager.remove(connection_id)
        assert all(not index for index in vars(self.manager).values())

    @invariant()
    def every_index_agrees(self) -> None:
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


TestRegistry = pytest.mark.behaviour("D45")(pytest.mark.behaviour("D44")(Registry.TestCase))
TestRegistry.settings = settings(max_examples=100, stateful_step_count=30)
