"""Moderating sessions by HTTP."""

from client_sdk.contract import Scope
from tests.kit.server.api import StartApi


async def test_message_of_a_moderator_reaches_the_members(start_api: StartApi) -> None:
    api = await start_api()
    member = await api.join_session("ann", "room")
    sent = await api.call("POST", "/sessions/room/messages", json={"data": {"text": None}})
    message = await member.next("message")
    assert message["user_id"] == "ops"
    assert message["data"] == {"text": None}
    assert {key: message[key] for key in sent} == sent
    [kept] = (await api.call("GET", "/sessions/room/history"))["messages"]
    assert kept == message


async def test_repeated_message_has_one_position(start_api: StartApi) -> None:
    api = await start_api()
    await api.join_session("ann", "room")
    path, key = "/sessions/room/messages", {"Idempotency-Key": "m1"}
    first = await api.call("POST", path, json={"data": {"n": 1}}, headers=key)
    assert await api.call("POST", path, json={"data": {"n": 1}}, headers=key) == first
    assert await api.call("POST", path, json={"data": {"n": 1}, "id": "m1"}) == first
    code = await api.refusal("POST", path, 409, json={"data": {"n": 2}}, headers=key)
    assert code == "publish.conflict"


async def test_session_shows_its_participants_and_position(start_api: StartApi) -> None:
    api = await start_api()
    for user in ("ann", "ann", "bob"):
        await api.join_session(user, "room")
    await api.call("POST", "/sessions/room/messages", json={"data": {}})
    session = await api.call("GET", "/sessions/room")
    assert session["participant_count"] == 2
    assert [(each["user_id"], each["connections"]) for each in session["participants"]] == [
        ("ann", 2),
        ("bob", 1),
    ]
    assert session["seq"] == 1
    assert not session["closed"]


async def test_sessions_are_listed_in_pages_with_their_metadata(
    start_api: StartApi,
) -> None:
    api = await start_api()
    client = await api.join_session("ann")
    for name in ("c", "a", "b"):
        await client.call("join", session_id=name, metadata={"title": name, "end": None})
    first = await api.call("GET", "/sessions", params={"limit": 2})
    assert [each["session_id"] for each in first["sessions"]] == ["a", "b"]
    assert first["sessions"][0]["metadata"] == {"title": "a", "end": None}
    rest = await api.call("GET", "/sessions", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [each["session_id"] for each in rest["sessions"]] == ["c"]
    assert "next_cursor" not in rest


async def test_closed_session_ends_for_its_members(start_api: StartApi) -> None:
    api = await start_api()
    member = await api.join_session("ann", "room")
    assert await api.call("DELETE", "/sessions/room") == {"connections": 1}
    assert (await member.next("session_closed"))["session_id"] == "room"
    assert (await api.call("GET", "/sessions/room"))["closed"]
    code = await api.refusal("POST", "/sessions/room/messages", 409, json={"data": {}})
    assert code == "session.closed"
    assert await api.refusal("DELETE", "/sessions/room", 409) == "session.closed"


async def test_unknown_session_is_not_created_by_asking(start_api: StartApi) -> None:
    api = await start_api()
    for method, path, body in (
        ("GET", "/sessions/room", None),
        ("GET", "/sessions/room/history", None),
        ("POST", "/sessions/room/messages", {"data": {}}),
        ("DELETE", "/sessions/room", None),
    ):
        assert await api.refusal(method, path, 404, json=body) == "session.not_joined"
    assert (await api.call("GET", "/sessions"))["sessions"] == []


async def test_moderating_needs_its_scope_and_no_other(start_api: StartApi) -> None:
    api = await start_api()
    await api.join_session("ann", "room")
    member = api.token(scopes=[Scope.SESSION_JOIN, Scope.ADMIN])
    moderator = api.token(scopes=[Scope.SESSION_MODERATE])
    assert await api.refusal("GET", "/sessions/room", 403, token=member) == "auth.forbidden"
    await api.call("DELETE", "/sessions/room", token=moderator)


async def test_token_for_some_sessions_sees_no_others(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann")
    for name in ("job:1", "room"):
        await client.call("join", session_id=name)
    narrow = api.operator(sessions=["job:*"])
    listed = (await api.call("GET", "/sessions", token=narrow))["sessions"]
    assert [each["session_id"] for each in listed] == ["job:1"]
    assert await api.refusal("GET", "/sessions/room", 403, token=narrow) == "auth.forbidden"


async def test_sessions_of_another_org_are_not_there(start_api: StartApi) -> None:
    api = await start_api()
    await api.join_session("ann", "room", org="other")
    assert (await api.call("GET", "/sessions"))["sessions"] == []
    assert await api.refusal("DELETE", "/sessions/room", 404) == "session.not_joined"


async def test_kicked_user_is_out_of_the_session_and_others_stay(start_api: StartApi) -> None:
    api = await start_api()
    ann = await api.join_session("ann", "room")
    await api.join_session("bob", "room")
    answer = await api.call("POST", "/sessions/room/kick", json={"user": "ann"})
    assert answer == {"connections": 1}
    assert (await ann.next("session_closed"))["reason"] == "kicked"
    session = await api.call("GET", "/sessions/room")
    assert [each["user_id"] for each in session["participants"]] == ["bob"]
    assert await api.refusal("POST", "/sessions/room/kick", 404, json={"user": "ann"})
    token = api.token("ann", scopes=(Scope.SESSION_JOIN,))
    assert await api.refusal("POST", "/sessions/room/kick", 403, token=token, json={"user": "bob"})
