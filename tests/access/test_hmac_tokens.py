"""Tokens that are recognized without PyJWT: exactly those that PyJWT accepts."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.hmac_tokens import HmacTokens
from tests.access.forge import SECRET

REQUIRED = ("sub", "exp", "iat", "aud")
CLAIMS: dict[str, object] = {"sub": "ann", "exp": 2e9, "iat": 1e9, "aud": "floorcast"}
HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")


def tokens(issuer: str | None = None) -> HmacTokens:
    return HmacTokens(SECRET, audience="floorcast", issuer=issuer, required=REQUIRED)


def signed(payload: bytes, *, secret: str = SECRET) -> str:
    """A token with this payload."""
    signing_input = HEADER + b"." + base64.urlsafe_b64encode(payload).rstrip(b"=")
    signature = hmac.new(secret.encode(), signing_input, hashlib.sha256).digest()
    return b".".join((signing_input, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


def by_pyjwt(token: str, issuer: str | None = None) -> dict[str, Any] | None:
    """The claims that PyJWT accepts; None if it refuses the token."""
    names = ("sub", "jti", "exp", "iat", "nbf")
    required = [*REQUIRED, *(() if issuer is None else ("iss",))]
    options: Any = {"require": required, **{f"verify_{name}": False for name in names}}
    try:
        return jwt.decode(
            token, SECRET, ["HS256"], options=options, audience="floorcast", issuer=issuer
        )
    except jwt.PyJWTError:
        return None


def test_valid_token_is_recognized() -> None:
    assert tokens().claims(jwt.encode(CLAIMS, SECRET)) == CLAIMS


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": ["floorcast", 7]},
        {"aud": []},
        {"aud": {"floorcast": 1}},
        {"aud": None},
        {"sub": None},
        {"exp": None},
    ],
)
def test_claims_for_others_and_missing_ones_are_left_to_pyjwt(change: dict[str, object]) -> None:
    token = signed(json.dumps(CLAIMS | change).encode())
    assert tokens().claims(token) is None
    assert by_pyjwt(token) is None


def test_audience_may_be_one_of_several() -> None:
    claims = CLAIMS | {"aud": ["other", "floorcast"]}
    assert tokens().claims(signed(json.dumps(claims).encode())) == claims


@pytest.mark.parametrize("issuer", [None, "us", "them", 7, ["us"]])
def test_issuer_must_be_the_configured_one(issuer: object) -> None:
    claims = CLAIMS if issuer is None else CLAIMS | {"iss": issuer}
    token = signed(json.dumps(claims).encode())
    found = tokens(issuer="us").claims(token)
    assert (found is not None) == (issuer == "us") == (by_pyjwt(token, "us") is not None)


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'"text"', b"{", b"\xff", b"[" * 100_000, b'{"sub":"a"}']
)
def test_payload_that_holds_no_claims_is_left_to_pyjwt(payload: bytes) -> None:
    assert tokens().claims(signed(payload)) is None


def test_signature_of_another_secret_is_not_recognized() -> None:
    payload = json.dumps(CLAIMS).encode()
    assert tokens().claims(signed(payload, secret=SECRET + "x")) is None


def test_second_encoding_of_a_signature_is_not_recognized() -> None:
    token = jwt.encode(CLAIMS, SECRET)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # The last two bits of the last character mean nothing.
    spare = alphabet[alphabet.index(token[-1]) + 1]
    assert base64.urlsafe_b64decode(token.rpartition(".")[2] + "=") == base64.urlsafe_b64decode(
        token.rpartition(".")[2][:-1] + spare + "="
    )
    assert tokens().claims(token[:-1] + spare) is None


TOKEN = jwt.encode(CLAIMS, SECRET)
edits = st.tuples(
    st.integers(0, len(TOKEN)),
    st.integers(0, 3),
    st.text("AZaz09-_.=+/ \n\u00e9", max_size=4),
)


@given(st.lists(edits, max_size=3))
def test_nothing_is_recognized_that_pyjwt_refuses(changes: list[tuple[int, int, str]]) -> None:
    token = TOKEN
    for start, removed, added in changes:
        token = token[:start] + added + token[start + removed :]
    claims = tokens().claims(token)
    if claims is not None:
        assert claims == by_pyjwt(token)


claim_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["floorcast", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*CLAIMS, "iss", "jti", "nbf"]), claim_values))
def test_claims_are_judged_as_pyjwt_judges_them(changes: dict[str, object]) -> None:
    token = signed(json.dumps(CLAIMS | changes).encode())
    for issuer in (None, "floorcast"):
        required = REQUIRED if issuer is None else (*REQUIRED, "iss")
        ours = HmacTokens(SECRET, audience="floorcast", issuer=issuer, required=required)
        found = ours.claims(token)
        # As text: NaN is not equal to itself.
        assert found is None or str(found) == str(by_pyjwt(token, issuer))
