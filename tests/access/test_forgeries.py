"""Tests that forged tokens are refused, cheaply."""

import json
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.contract import ErrorCode
from server.access import AccessConfig, build_verifier
from server.access.key_material import Key, read_secret
from server.access.tokens import TokenVerifier
from server.core.errors import AccessError
from tests.access import forge
from tests.access.forge import SECRET, raw_token, token, verifier
from tests.kit.clock import ManualClock

PAYLOAD = json.dumps(forge.claims()).encode()
WRONG_ALGORITHM = "the token's algorithm is not accepted"


async def refusal(text: str, token_verifier: TokenVerifier | None = None) -> str:
    """The message of a refused token; checks its code."""
    with pytest.raises(AccessError) as caught:
        await (token_verifier or verifier()).verify(text)
    assert caught.value.code is ErrorCode.AUTH_INVALID
    return caught.value.message


@pytest.mark.behaviour("C1")
async def test_unmodified_token_is_accepted() -> None:
    assert (await verifier().verify(raw_token(b'{"alg":"HS256"}', PAYLOAD))).user_id == "ann"


@pytest.mark.behaviour("C2", "E2")
async def test_token_signed_with_another_secret_is_refused() -> None:
    message = await refusal(token(key="another secret, just as long as the first"))
    assert message == "the token's signature is invalid"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
async def test_unsigned_token_is_refused(alg: str) -> None:
    signed = raw_token(json.dumps({"alg": alg}).encode(), PAYLOAD)
    assert await refusal(signed) == WRONG_ALGORITHM
    assert await refusal(signed.rpartition(".")[0] + ".") == WRONG_ALGORITHM


@pytest.mark.parametrize("alg", ["HS384", "HS512", "RS256", "hs256", ["HS256"], None, 7, {}])
async def test_only_the_configured_algorithm_is_accepted(alg: object) -> None:
    header = json.dumps({"alg": alg}).encode()
    assert await refusal(raw_token(header, PAYLOAD)) == WRONG_ALGORITHM


async def test_header_without_algorithm_is_refused() -> None:
    assert await refusal(raw_token(b"{}", PAYLOAD)) == WRONG_ALGORITHM


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_public_key_is_not_accepted_as_a_secret(algorithm: str, tmp_path: Path) -> None:
    pem = forge.public_pem(forge.key_for(algorithm))
    file = tmp_path / "key.pem"
    file.write_bytes(pem)
    config = AccessConfig(algorithm=algorithm, public_key_file=file)
    token_verifier = build_verifier(config, ManualClock())
    confused = raw_token(b'{"alg":"HS256"}', PAYLOAD, secret=pem)
    assert await refusal(confused, token_verifier) == WRONG_ALGORITHM
    dressed = raw_token(json.dumps({"alg": algorithm}).encode(), PAYLOAD, secret=pem)
    assert await refusal(dressed, token_verifier) == "the token's signature is invalid"


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
async def test_token_with_critical_extensions_is_refused(extra: dict[str, object]) -> None:
    assert await refusal(raw_token(json.dumps({"alg": "HS256", **extra}).encode(), PAYLOAD))


async def test_keys_in_the_token_header_are_ignored() -> None:
    thief = forge.ec_key(index=9)
    header = {"jwk": forge.jwk(thief), "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/"}
    assert await refusal(token(key=thief, algorithm="ES256", header=header)) == WRONG_ALGORITHM
    mine = raw_token(json.dumps({"alg": "HS256", **header}).encode(), PAYLOAD, secret=b"x" * 32)
    assert await refusal(mine) == "the token's signature is invalid"


@pytest.mark.parametrize("kid", [None, 7, ["a"], {}, True])
async def test_key_id_must_be_a_string(kid: object) -> None:
    header = json.dumps({"alg": "HS256", "kid": kid}).encode()
    assert await refusal(raw_token(header, PAYLOAD)) == "malformed token"


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1 --", "\x00", "/etc/passwd"])
async def test_fixed_key_ignores_the_key_id(kid: str) -> None:
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
async def test_payload_must_be_an_object(payload: bytes) -> None:
    assert await refusal(raw_token(b'{"alg":"HS256"}', payload))


async def test_last_of_duplicate_claims_is_used() -> None:
    twice = PAYLOAD[:-1] + b', "sub": "bob"}'
    assert (await verifier().verify(raw_token(b'{"alg":"HS256"}', twice))).user_id == "bob"


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "...", "a.b.c", "a.b", "{}.{}.{}", "\ud800", "é.é.é", "\x00", "=.=.=", "null"],
)
async def test_malformed_token_is_refused(text: str) -> None:
    assert await refusal(text) == "malformed token"


@pytest.mark.parametrize("header", [b"[]", b"null", b"{", b"\xff", b"[" * 3000, b'"HS256"'])
async def test_header_must_be_an_object(header: bytes) -> None:
    assert await refusal(raw_token(header, PAYLOAD)) == "malformed token"


class NoKeys:
    """A key source that must not be called."""

    async def key(self, kid: str | None) -> Key:
        raise AssertionError("a key was requested")


async def test_too_long_token_is_refused_before_decoding() -> None:
    token_verifier = TokenVerifier(AccessConfig(secret=SECRET), NoKeys(), ManualClock())
    assert await refusal("x" * 8193, token_verifier) == "the token is too long"
    assert await refusal("x" * 8192, token_verifier) == "malformed token"


async def test_token_of_maximum_length_is_accepted() -> None:
    room = 8192 - len(token(note="")) - 8
    text = token(note="x" * (room * 3 // 4))
    assert 8150 < len(text) <= 8192
    assert await verifier().verify(text)


async def test_too_short_secret_verifies_nothing() -> None:
    class Short:
        async def key(self, kid: str | None) -> Key:
            return read_secret("short")

    token_verifier = TokenVerifier(AccessConfig(secret=SECRET), Short(), ManualClock())
    assert await refusal(raw_token(b'{"alg":"HS256"}', PAYLOAD, secret=b"short"), token_verifier)


@given(st.integers(min_value=0), st.sampled_from("-_AZaz09.="))
async def test_token_with_one_changed_character_is_refused(position: int, letter: str) -> None:
    good = token(scope="market:read")
    at = position % len(good)
    changed = good[:at] + letter + good[at + 1 :]
    if changed != good:
        await refusal(changed)


@given(st.text(max_size=200) | st.binary(max_size=120).map(lambda b: b.hex()))
async def test_random_text_is_refused(text: str) -> None:
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
async def test_any_claim_value_is_accepted_or_refused(value: object, claim: str) -> None:
    text = raw_token(b'{"alg":"HS256"}', json.dumps(forge.claims(**{claim: value})).encode())
    code = None
    try:
        await verifier().verify(text)
    except AccessError as error:
        code = error.code
    assert code in (None, ErrorCode.AUTH_INVALID, ErrorCode.AUTH_EXPIRED)


def test_raw_token_signs_as_pyjwt_does() -> None:
    text = raw_token(b'{"alg":"HS256","typ":"JWT"}', b'{"a":1}')
    assert jwt.api_jws.decode(text, SECRET, algorithms=["HS256"]) == b'{"a":1}'
