"""Tokens made by somebody who wants in: none is taken, and each costs little."""

import json
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.contract import ErrorCode
from server.access import AccessConfig, build_verifier
from server.access.key_material import Key
from server.access.tokens import TokenVerifier
from server.core.errors import AccessError
from tests.access import forge
from tests.access.forge import SECRET, raw_token, token, verifier
from tests.kit.clock import ManualClock

PAYLOAD = json.dumps(forge.claims()).encode()
WRONG_ALGORITHM = "the token is not signed as this server demands"


async def refusal(text: str, token_verifier: TokenVerifier | None = None) -> str:
    """Why a token is refused; always with the same code."""
    with pytest.raises(AccessError) as caught:
        await (token_verifier or verifier()).verify(text)
    assert caught.value.code is ErrorCode.AUTH_INVALID
    return caught.value.message


@pytest.mark.behaviour("C1")
async def test_the_token_that_the_forgeries_start_from_is_good() -> None:
    assert (await verifier().verify(raw_token(b'{"alg":"HS256"}', PAYLOAD))).user_id == "ann"


@pytest.mark.behaviour("C2", "E2")
async def test_a_token_signed_with_another_secret_is_refused() -> None:
    message = await refusal(token(key="another secret, just as long as the first"))
    assert message == "the token's signature is not right"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
async def test_a_token_that_is_not_signed_is_refused(alg: str) -> None:
    signed = raw_token(json.dumps({"alg": alg}).encode(), PAYLOAD)
    assert await refusal(signed) == WRONG_ALGORITHM
    assert await refusal(signed.rpartition(".")[0] + ".") == WRONG_ALGORITHM


@pytest.mark.parametrize("alg", ["HS384", "HS512", "RS256", "hs256", ["HS256"], None, 7, {}])
async def test_only_the_one_configured_algorithm_is_taken(alg: object) -> None:
    header = json.dumps({"alg": alg}).encode()
    assert await refusal(raw_token(header, PAYLOAD)) == WRONG_ALGORITHM


async def test_a_header_without_algorithm_is_refused() -> None:
    assert await refusal(raw_token(b"{}", PAYLOAD)) == WRONG_ALGORITHM


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_public_key_is_no_secret_to_sign_with(algorithm: str, tmp_path: Path) -> None:
    pem = forge.public_pem(forge.key_for(algorithm))
    file = tmp_path / "key.pem"
    file.write_bytes(pem)
    config = AccessConfig(algorithm=algorithm, public_key_file=file)
    judge = build_verifier(config, ManualClock())
    confused = raw_token(b'{"alg":"HS256"}', PAYLOAD, secret=pem)
    assert await refusal(confused, judge) == WRONG_ALGORITHM
    dressed = raw_token(json.dumps({"alg": algorithm}).encode(), PAYLOAD, secret=pem)
    assert await refusal(dressed, judge) == "the token's signature is not right"


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": []},
        {"crit": None},
        {"b64": False},
    ],
)
async def test_a_token_that_demands_extensions_is_refused(extra: dict[str, object]) -> None:
    assert await refusal(raw_token(json.dumps({"alg": "HS256", **extra}).encode(), PAYLOAD))


async def test_keys_that_a_token_brings_along_are_not_looked_at() -> None:
    thief = forge.ec_key(index=9)
    header = {"jwk": forge.jwk(thief), "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/"}
    assert await refusal(token(key=thief, algorithm="ES256", header=header)) == WRONG_ALGORITHM
    mine = raw_token(json.dumps({"alg": "HS256", **header}).encode(), PAYLOAD, secret=b"x" * 32)
    assert await refusal(mine) == "the token's signature is not right"


@pytest.mark.parametrize("kid", [None, 7, ["a"], {}, True])
async def test_a_key_id_that_is_no_text_is_refused(kid: object) -> None:
    header = json.dumps({"alg": "HS256", "kid": kid}).encode()
    assert await refusal(raw_token(header, PAYLOAD)) == "the token cannot be read"


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1 --", "\x00", "/etc/passwd"])
async def test_a_key_id_means_nothing_where_there_is_one_key(kid: str) -> None:
    assert await verifier().verify(token(header={"kid": kid}))
    assert await refusal(token(key="k" * 40, header={"kid": kid}))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"sub"',
        b"7",
        b"{",
        b"\xff\xfe",
        b'{"sub":"ann","exp":' + b"9" * 5000 + b"}",
        b"[" * 3000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
    ids=range(10),
)
async def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    assert await refusal(raw_token(b'{"alg":"HS256"}', payload))


async def test_of_a_claim_given_twice_the_signed_last_one_counts_for_every_check() -> None:
    twice = PAYLOAD[:-1] + b', "sub": "bob"}'
    assert (await verifier().verify(raw_token(b'{"alg":"HS256"}', twice))).user_id == "bob"


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "...", "a.b.c", "a.b", "{}.{}.{}", "\ud800", "é.é.é", "\x00", "=.=.=", "null"],
)
async def test_what_is_no_token_at_all_is_refused(text: str) -> None:
    assert await refusal(text) == "the token cannot be read"


@pytest.mark.parametrize("header", [b"[]", b"null", b"{", b"\xff", b"[" * 3000, b'"HS256"'])
async def test_a_header_that_is_no_object_is_refused(header: bytes) -> None:
    assert await refusal(raw_token(header, PAYLOAD)) == "the token cannot be read"


class NoKeys:
    """A source that must not be asked."""

    async def key(self, kid: str | None) -> Key:
        raise AssertionError("asked for a key")


async def test_a_token_that_is_too_long_is_refused_before_anything_is_done_with_it() -> None:
    judge = TokenVerifier(AccessConfig(secret=SECRET), NoKeys(), ManualClock())
    assert await refusal("x" * 8193, judge) == "the token is too long"
    assert await refusal("x" * 8192, judge) == "the token cannot be read"


async def test_a_token_of_the_greatest_length_is_taken() -> None:
    room = 8192 - len(token(note="")) - 8
    text = token(note="x" * (room * 3 // 4))
    assert 8150 < len(text) <= 8192
    assert await verifier().verify(text)


async def test_a_secret_that_is_too_short_verifies_nothing() -> None:
    class Short:
        async def key(self, kid: str | None) -> Key:
            return "short"

    judge = TokenVerifier(AccessConfig(secret=SECRET), Short(), ManualClock())
    assert await refusal(raw_token(b'{"alg":"HS256"}', PAYLOAD, secret=b"short"), judge)


@given(st.integers(min_value=0), st.sampled_from("-_AZaz09.="))
async def test_a_token_changed_in_any_place_is_refused(place: int, letter: str) -> None:
    good = token(scope="market:read")
    at = place % len(good)
    changed = good[:at] + letter + good[at + 1 :]
    if changed != good:
        await refusal(changed)


@given(st.text(max_size=200) | st.binary(max_size=120).map(lambda b: b.hex()))
async def test_noise_is_refused_and_never_fails(text: str) -> None:
    await refusal(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    ),
    st.sampled_from(
        ["sub", "org", "exp", "iat", "nbf", "aud", "scope", "symbols", "sessions", "jti"]
    ),
)
async def test_whatever_an_issuer_writes_is_taken_or_refused(value: object, claim: str) -> None:
    text = raw_token(b'{"alg":"HS256"}', json.dumps(forge.claims(**{claim: value})).encode())
    code = None
    try:
        await verifier().verify(text)
    except AccessError as error:
        code = error.code
    assert code in (None, ErrorCode.AUTH_INVALID, ErrorCode.AUTH_EXPIRED)


def test_the_forger_signs_as_the_library_does() -> None:
    text = raw_token(b'{"alg":"HS256","typ":"JWT"}', b'{"a":1}')
    assert jwt.api_jws.decode(text, SECRET, algorithms=["HS256"]) == b'{"a":1}'
