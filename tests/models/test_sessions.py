"""The models of `/session`: valid and invalid requests, and what clients can rely on."""

import pytest
from pydantic import ValidationError

from client_sdk.contract import (
    CloseSession,
    FetchHistory,
    Join,
    Kick,
    Leave,
    ListParticipants,
    MemberChange,
    Notification,
    Participant,
    Position,
    Request,
    Send,
    SessionMessage,
    Signal,
)

ROOM = {"session_id": "room"}
MESSAGE = {**ROOM, "data": {}}
ALL: list[tuple[type[Request], dict[str, object]]] = [
    (Join, {}),
    (Leave, {}),
    (Send, {"data": {}}),
    (Signal, {"data": {}}),
    (FetchHistory, {}),
    (ListParticipants, {}),
    (Kick, {"user_id": "ann"}),
    (CloseSession, {}),
]


@pytest.mark.parametrize(("model", "more"), ALL)
def test_request_needs_a_session_id_and_forbids_extra_fields(
    model: type[Request], more: dict[str, object]
) -> None:
    complete = {"session_id": "job:42", **more}
    request = model.model_validate(complete)
    assert request.model_dump(exclude_unset=True) == complete
    invalid: list[object] = [more, {**complete, "more": 1}, [], "job:42", None]
    for each in invalid:
        with pytest.raises(ValidationError):
            model.model_validate(each)


@pytest.mark.parametrize(("model", "more"), ALL)
@pytest.mark.parametrize("session_id", [7, None, True, ["job:1"], {"id": "job:1"}, 1.5])
@pytest.mark.behaviour("D21")
def test_session_id_of_a_wrong_type_is_refused(
    model: type[Request], more: dict[str, object], session_id: object
) -> None:
    with pytest.raises(ValidationError, match="session_id"):
        model.model_validate({"session_id": session_id, **more})


@pytest.mark.parametrize(("model", "more"), ALL)
@pytest.mark.parametrize("session_id", ["", ":1", "-a", "a b", "a/b", "job:é", "a\n", "a" * 129])
@pytest.mark.behaviour("D22")
def test_session_id_of_a_wrong_pattern_is_refused(
    model: type[Request], more: dict[str, object], session_id: str
) -> None:
    with pytest.raises(ValidationError, match="session_id"):
        model.model_validate({"session_id": session_id, **more})


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Join, {**ROOM, "since": {"epoch": "e"}}),
        (Join, {**ROOM, "since": 7}),
        (Join, {**ROOM, "metadata": "text"}),
        (Join, {**ROOM, "metadata": [1]}),
        (Send, ROOM),
        (Send, {**ROOM, "data": "text"}),
        (Send, {**ROOM, "data": None}),
        (Send, {**ROOM, "data": [{}]}),
        (Send, {**MESSAGE, "id": ""}),
        (Send, {**MESSAGE, "id": 7}),
        (Send, {**MESSAGE, "id": "a" * 129}),
        (Send, {**MESSAGE, "user_id": "somebody else"}),
        (Signal, {**MESSAGE, "id": "no signal has one"}),
        (FetchHistory, {**ROOM, "limit": 0}),
        (FetchHistory, {**ROOM, "limit": 1001}),
        (FetchHistory, {**ROOM, "limit": "10"}),
        (FetchHistory, {**ROOM, "limit": True}),
        (FetchHistory, {**ROOM, "limit": None}),
        (FetchHistory, {**ROOM, "before_seq": 0}),
        (FetchHistory, {**ROOM, "before_seq": 1.0}),
        (Kick, ROOM),
        (Kick, {**ROOM, "user_id": ""}),
        (Kick, {**ROOM, "user_id": "a" * 129}),
        (Kick, {**ROOM, "user_id": ["ann", "bob"]}),
    ],
)
@pytest.mark.behaviour("D49")
def test_invalid_session_request_is_refused(model: type[Request], body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(body)


def test_optional_fields_have_defaults() -> None:
    join, send = Join.model_validate(ROOM), Send.model_validate(MESSAGE)
    history = FetchHistory.model_validate(ROOM)
    assert (join.since, join.metadata, send.id) == (None, None, None)
    assert (history.before_seq, history.limit) == (None, 100)


def test_join_carries_position_and_metadata() -> None:
    since, metadata = {"epoch": "e1", "seq": 7}, {"name": "backtest", "steps": [1, {"of": 9}]}
    join = Join.model_validate({**ROOM, "since": since, "metadata": metadata})
    assert join.since == Position(epoch="e1", seq=7)
    assert join.metadata == metadata


@pytest.mark.parametrize("limit", [1, 1000])
def test_history_limit_is_1_to_1000(limit: int) -> None:
    page = FetchHistory.model_validate({**ROOM, "limit": limit, "before_seq": 1})
    assert (page.limit, page.before_seq) == (limit, 1)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Participant, {"user_id": "ünal", "connections": 2, "joined_at": 1}),
        (
            SessionMessage,
            {
                "session_id": "room",
                "epoch": "e1",
                "seq": 1,
                "id": "m1",
                "user_id": "ann",
                "data": {"text": "hi", "of": [1, {"nested": None}]},
                "ts": 1,
            },
        ),
        (MemberChange, {**ROOM, "user_id": "ann", "participant_count": 0, "ts": 1}),
        (Notification, {"id": "n1", "event": "x", "data": {}, "critical": True, "ts": 1}),
    ],
)
def test_model_ignores_unknown_fields_and_needs_its_own(
    model: type[Participant | SessionMessage | MemberChange | Notification],
    body: dict[str, object],
) -> None:
    assert model.model_validate({**body, "later": 1}).model_dump() == body
    for missing in body:
        with pytest.raises(ValidationError, match=missing):
            model.model_validate({name: body[name] for name in body if name != missing})
