"""Notifying, finding and disconnecting users by HTTP."""

from tests.kit.patience import until
from tests.kit.server.api import StartApi


async def test_notice_reaches_all_devices_of_a_user(start_api: StartApi) -> None:
    api = await start_api()
    devices = [await api.join_session("ann") for _ in range(2)]
    stranger = await api.join_session("ann", org="other")
    answer = await api.call(
        "POST", "/users/ann/notify", json={"event": "margin.call", "data": {"left": None}}
    )
    assert answer["reached"] == 2
    for device in devices:
        notice = await device.next("notification")
        assert notice["id"] == answer["id"]
        assert (notice["event"], notice["data"]) == ("margin.call", {"left": None})
    assert await stranger.pending_events() == []


async def test_critical_notice_waits_for_its_user_and_is_sent_once(
    start_api: StartApi,
) -> None:
    api = await start_api()
    body = {"event": "kyc", "data": {}, "critical": True}
    key = {"Idempotency-Key": "n1"}
    for _ in range(2):
        answer = await api.call("POST", "/users/ann/notify", json=body, headers=key)
        assert answer == {"id": "n1", "reached": 0}
    client = await api.join_session("ann")
    assert (await client.next("notification"))["id"] == "n1"
    assert await client.pending_events() == []


async def test_notice_with_an_idempotency_key_is_sent_once(start_api: StartApi) -> None:
    api = await start_api()
    device = await api.join_session("ann")
    body, key = {"event": "hello", "data": {"n": 1}}, {"Idempotency-Key": "n1"}
    sent = [await api.call("POST", "/users/ann/notify", json=body, headers=key) for _ in range(2)]
    assert sent == [{"id": "n1", "reached": 1}, {"id": "n1", "reached": 0}]
    assert [name for name, _ in await device.pending_events()] == ["notification"]
    other = {"event": "hello", "data": {"n": 2}}
    code = await api.refusal("POST", "/users/ann/notify", 409, json=other, headers=key)
    assert code == "publish.conflict"
    await api.call("POST", "/users/bob/notify", json=other, headers=key)
    api.pass_time(121)
    assert (await api.call("POST", "/users/ann/notify", json=other, headers=key))["reached"] == 1


async def test_user_is_found_with_connections_topics_and_sessions(
    start_api: StartApi,
) -> None:
    api = await start_api()
    market = await api.join_market("ann")
    await market.call("subscribe", {"topics": ["PRICE:BTCUSDT"], "interval_ms": 100})
    await api.join_session("ann", "room")
    found = await api.call("GET", "/users/ann")
    assert found["online"]
    assert found["topics"] == ["PRICE:BTCUSDT"]
    assert found["sessions"] == ["room"]
    assert {each["namespace"] for each in found["connections"]} == {"/market", "/session"}
    assert {each["user_id"] for each in found["connections"]} == {"ann"}


async def test_user_who_has_gone_was_last_seen_then(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann")
    api.pass_time(1)
    assert "last_seen" not in await api.call("GET", "/users/ann")
    client.cut()
    await until(lambda: not len(api.server.clients.registry))
    left_ms = int(api.clock.time() * 1000)
    api.pass_time(3600)
    found = await api.call("GET", "/users/ann")
    assert (found["online"], found["last_seen"]) == (False, left_ms)
    other = api.operator(org="other")
    assert "last_seen" not in await api.call("GET", "/users/ann", token=other)
    api.pass_time(2_592_000)
    assert "last_seen" not in await api.call("GET", "/users/ann")


async def test_user_of_another_org_is_not_there(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann", "room", org="other")
    found = await api.call("GET", "/users/ann")
    assert found == {
        "user": "ann",
        "online": False,
        "connections": [],
        "sessions": [],
        "topics": [],
        "incomplete": [],
    }
    assert (await api.call("POST", "/users/ann/disconnect"))["closed"] == 0
    assert await client.pending_events() == []


async def test_disconnected_user_is_told_why_and_stays_away(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann")
    body = {"code": "desk.closed", "message": "the desk is closed"}
    assert (await api.call("POST", "/users/ann/disconnect", json=body))["closed"] == 1
    goodbye = await client.next("goodbye")
    assert goodbye == {**body, "reconnect": False, "after_ms": 0}
    # A stock client stays away after a DISCONNECT packet.
    assert await client.client.text() == "41/session,"
    await client.client.until_closed()


async def test_disconnect_may_ask_clients_to_come_back(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann")
    await api.call("POST", "/users/ann/disconnect", json={"reconnect": True})
    goodbye = await client.next("goodbye")
    assert goodbye["reconnect"]
    assert goodbye["code"] == "auth.forbidden"
    await client.client.until_closed()


async def test_user_id_may_be_of_any_script(start_api: StartApi) -> None:
    api = await start_api()
    name = "Анна/7"
    await api.join_session(name)
    assert (await api.call("GET", "/users/%D0%90%D0%BD%D0%BD%D0%B0%2F7"))["online"]
