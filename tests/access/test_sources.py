"""Tests where a client's token is found, and in which order."""

import pytest

from client_sdk.contract import ErrorCode
from server.access import find_token
from server.core.errors import AccessError


def test_auth_payload_precedes_header_and_query() -> None:
    assert find_token({"token": "a"}, "Bearer b", "c") == "a"
    assert find_token({}, "Bearer b", "c") == "b"
    assert find_token(None, None, "c") == "c"


@pytest.mark.parametrize("auth", [None, {}, {"token": None}, {"token": ""}, {"session_id": "a"}])
@pytest.mark.parametrize("authorization", [None, "", "Basic YTpi", "Digest x", "Bear b"])
@pytest.mark.parametrize("query", [None, ""])
def test_missing_token_is_none(auth: object, authorization: str | None, query: str | None) -> None:
    assert find_token(auth, authorization, query) is None


def test_empty_token_does_not_hide_the_header() -> None:
    assert find_token({"token": ""}, "Bearer b", None) == "b"


@pytest.mark.parametrize("header", ["Bearer b", "bearer b", "BEARER  b", "  Bearer b  "])
def test_bearer_scheme_is_case_insensitive(header: str) -> None:
    assert find_token(None, header, None) == "b"


def test_basic_auth_header_does_not_hide_the_query() -> None:
    assert find_token(None, "Basic YTpi", "c") == "c"


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer   "])
def test_bearer_header_without_token_is_refused(header: str) -> None:
    with pytest.raises(AccessError, match="must have a token") as caught:
        find_token(None, header, "c")
    assert caught.value.code is ErrorCode.AUTH_INVALID


@pytest.mark.parametrize("token", [7, 0, True, False, [], ["a"], {}, {"token": "a"}, b"a"])
def test_token_must_be_a_string(token: object) -> None:
    with pytest.raises(AccessError, match=r"auth\.token must be a string") as caught:
        find_token({"token": token}, "Bearer b", "c")
    assert caught.value.code is ErrorCode.AUTH_INVALID


@pytest.mark.parametrize("auth", ["a", "", 7, 0, False, [], ["token"], [["token", "a"]]])
def test_auth_payload_must_be_an_object(auth: object) -> None:
    with pytest.raises(AccessError, match="auth must be an object") as caught:
        find_token(auth, "Bearer b", "c")
    assert caught.value.code is ErrorCode.AUTH_INVALID
