"""Tests verification of signature, claims and times."""

import json
from pathlib import Path
from typing import Any

import pytest

from client_sdk.contract import ErrorCode, Scope
from server.access import AccessConfig, build_verifier
from server.core.errors import AccessError
from tests.access import forge
from tests.access.forge import SECRET, ec_key, jwk, jwks, raw_token, token, verifier
from tests.kit.clock import START, ManualClock

HEADER = b'{"alg":"HS256","typ":"JWT"}'


async def refusal(text: str, clock: ManualClock | None = None, **config: Any) -> AccessError:
    """The error of a refused token; checks that the message does not contain it."""
    with pytest.raises(AccessError) as caught:
        await verifier(clock, **config).verify(text)
    assert SECRET not in caught.value.message
    assert len(text) < 20 or text not in caught.value.message
    return caught.value


async def test_token_claims_become_a_principal() -> None:
    text = token(
        org="acme", scope="market:read admin", symbols=["BTC*"], sessions=["job:*", "thread:7"]
    )
    principal = await verifier().verify(text)
    assert (principal.user_id, principal.org) == ("ann", "acme")
    assert principal.scopes == {Scope.MARKET_READ, Scope.ADMIN}
    assert (principal.symbols, principal.sessions) == (("BTC*",), ("job:*", "thread:7"))
    assert principal.expires_at == START + 60
    assert not principal.anonymous


async def test_tokens_with_the_same_scopes_share_them() -> None:
    first, second = [await verifier().verify(token(sub=each, scope="admin")) for each in "ab"]
    assert first.scopes is second.scopes


async def test_missing_optional_claims_get_defaults() -> None:
    principal = await verifier().verify(token())
    assert (principal.org, principal.scopes) == ("default", frozenset())
    assert principal.symbols is None
    assert principal.sessions is None


@pytest.mark.parametrize("claim", ["sub", "exp", "iat", "aud", "iss"])
async def test_token_without_a_required_claim_is_refused(claim: str) -> None:
    issuer = "https://issuer.example"
    error = await refusal(token(claim, iss=issuer), issuer=issuer)
    assert (error.code, error.message) == (ErrorCode.AUTH_INVALID, f"the token has no {claim}")
    null = json.dumps(forge.claims(iss=issuer) | {claim: None}).encode()
    error = await refusal(raw_token(HEADER, null), issuer=issuer)
    assert error.message == f"the token has no {claim}"


@pytest.mark.parametrize("issuer", ["https://other.example", "https://issuer.example/"])
async def test_token_of_another_issuer_is_refused(issuer: str) -> None:
    error = await refusal(token(iss=issuer), issuer="https://issuer.example")
    assert error.message == "the token is from another issuer"


async def test_token_of_the_configured_issuer_is_accepted() -> None:
    issuer = "https://issuer.example"
    assert (await verifier(issuer=issuer).verify(token(iss=issuer))).user_id == "ann"


@pytest.mark.parametrize("audience", ["other", ["other"], [["floorcast"]], [{}], 7, "Floorcast"])
async def test_token_for_another_audience_is_refused(audience: object) -> None:
    error = await refusal(token(aud=audience))
    assert error.message == "the token is for another audience"


async def test_token_for_several_audiences_is_accepted() -> None:
    assert (await verifier().verify(token(aud=["other", "floorcast"]))).user_id == "ann"


@pytest.mark.parametrize("leeway", [0.0, 30.0])
async def test_token_expires_exactly_after_the_leeway(leeway: float) -> None:
    clock = ManualClock()
    clock.advance(60 + leeway - 0.25)
    assert await verifier(clock, leeway_seconds=leeway).verify(token())
    clock.advance(0.25)
    error = await refusal(token(), clock, leeway_seconds=leeway)
    assert error.code is ErrorCode.AUTH_EXPIRED


async def test_verifier_uses_the_injected_clock() -> None:
    assert await verifier().verify(token(iat=START - 9, nbf=START))  # long before the wall clock's


@pytest.mark.parametrize("leeway", [0.0, 30.0])
async def test_token_issued_in_the_future_is_refused(leeway: float) -> None:
    edge = START + leeway + 1
    assert await verifier(leeway_seconds=leeway).verify(token(iat=edge))
    error = await refusal(token(iat=edge + 0.25), leeway_seconds=leeway)
    assert (error.code, error.message) == (
        ErrorCode.AUTH_INVALID,
        "the token was issued in the future",
    )


@pytest.mark.parametrize("leeway", [0.0, 30.0])
async def test_token_is_refused_before_nbf(leeway: float) -> None:
    assert await verifier(leeway_seconds=leeway).verify(token(nbf=START + leeway))
    error = await refusal(token(nbf=START + leeway + 0.25), leeway_seconds=leeway)
    assert error.message == "the token is not valid yet"


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value", ['"1800000060"', "true", "[]", "{}", "NaN", "Infinity", "1e999", "1" + "0" * 400]
)
async def test_time_claims_must_be_numbers(claim: str, value: str) -> None:
    body = json.dumps(forge.claims(claim))[:-1] + f', "{claim}": {value}}}'
    error = await refusal(raw_token(HEADER, body.encode()))
    assert error.message == f"the token's {claim} must be a number of seconds"


@pytest.mark.behaviour("D37")
@pytest.mark.parametrize(
    "user",
    [
        "a",
        "x" * 128,
        "Ærøskøbing",
        "用户一",
        "مستخدم",
        "उपयोगकर्ता",
        "👩‍🚀" * 42,
        "a b",
        "o'neil;--",
    ],
)
async def test_user_id_may_be_in_any_script(user: str) -> None:
    principal = await verifier().verify(token(sub=user, org=user))
    assert (principal.user_id, principal.org) == (user, user)


@pytest.mark.parametrize("claim", ["sub", "org"])
@pytest.mark.parametrize(
    "value",
    ["", "x" * 129, "a\n", "a\x00b", "\x7f", "\x85", "\u2028", "\ud800", 7, True, [], {}, ["ann"]],
)
async def test_invalid_user_id_or_org_is_refused(claim: str, value: Any) -> None:
    error = await refusal(token(**{claim: value}))
    assert (error.code, error.message) == (
        ErrorCode.AUTH_INVALID,
        f"the token's {claim} must be 1 to 128 printable characters",
    )


async def test_null_org_is_refused() -> None:
    assert (
        await refusal(token(org=None))
    ).message == "the token's org must be 1 to 128 printable characters"


@pytest.mark.parametrize("scope", [["market:read"], None, 7, {"market:read": True}])
async def test_scope_claim_must_be_a_string(scope: object) -> None:
    assert (await refusal(token(scope=scope))).message == "the token's scope must be a string"


async def test_number_of_scopes_is_limited() -> None:
    many = " ".join(f"s{each}" for each in range(64))
    assert len((await verifier().verify(token(scope=many))).scopes) == 64
    assert (await refusal(token(scope=f"{many} s64"))).message == "the token has too many scopes"
    assert (await verifier().verify(token(scope="  a  b "))).scopes == {"a", "b"}


@pytest.mark.parametrize("claim", ["symbols", "sessions", "users"])
@pytest.mark.parametrize("value", ["BTC*", None, {}, [7], [None], [["*"]], ["x" * 129], ["*"] * 65])
async def test_pattern_claims_must_be_short_lists_of_strings(claim: str, value: Any) -> None:
    error = await refusal(token(**{claim: value}))
    assert error.message == f"the token's {claim} must be a list of at most 64 patterns"


async def test_empty_pattern_list_allows_nothing() -> None:
    principal = await verifier().verify(token(symbols=[], sessions=[]))
    assert not principal.may_use_symbol("BTCUSDT")
    assert not principal.may_join("job:1")


async def test_verification_with_a_fixed_key_never_suspends() -> None:
    steps = verifier().verify(token())
    with pytest.raises(StopIteration):
        steps.send(None)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_public_key_verifies_only_its_own_tokens(algorithm: str, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(forge.public_pem(forge.key_for(algorithm)))
    config = AccessConfig(algorithm=algorithm, public_key_file=file)
    token_verifier = build_verifier(config, ManualClock())
    own = token(key=forge.key_for(algorithm), algorithm=algorithm)
    assert (await token_verifier.verify(own)).user_id == "ann"
    with pytest.raises(AccessError, match="signature"):
        await token_verifier.verify(
            token(key=forge.key_for(algorithm, index=1), algorithm=algorithm)
        )


async def test_cached_token_still_expires() -> None:
    clock = ManualClock()
    token_verifier, text = verifier(clock), token()
    first = await token_verifier.verify(text)
    clock.advance(59.75)
    assert await token_verifier.verify(text) is first
    clock.advance(0.25)
    with pytest.raises(AccessError) as caught:
        await token_verifier.verify(text)
    assert caught.value.code is ErrorCode.AUTH_EXPIRED


async def test_cached_token_does_not_validate_a_forged_one() -> None:
    token_verifier, text = verifier(), token()
    await token_verifier.verify(text)
    head, body, signature = text.split(".")
    for forged in (f"{head}.{body}.", f"{head}.{body}.{signature[:-2]}AA", text[:-1]):
        with pytest.raises(AccessError):
            await token_verifier.verify(forged)


async def test_cached_token_is_verified_again_after_key_rotation() -> None:
    clock, published = ManualClock(), [jwks(jwk(ec_key(0), "a"))]

    async def fetch(url: str) -> bytes:
        return published[-1]

    config = AccessConfig(algorithm="ES256", jwks_url="https://issuer.example/keys")
    token_verifier = build_verifier(config, clock, fetch=fetch)
    text = token(key=ec_key(0), algorithm="ES256", header={"kid": "a"}, exp=START + 3600)
    await token_verifier.verify(text)
    # The same id with another key: the cached verification must not count.
    published.append(jwks(jwk(ec_key(1), "a")))
    clock.advance(301)
    with pytest.raises(AccessError, match="signature"):
        await token_verifier.verify(text)


async def test_token_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.access.tokens._MAX_VERIFIED", 2)
    token_verifier, texts = verifier(), [token(jti=str(number)) for number in range(3)]
    first, second, _ = [await token_verifier.verify(text) for text in texts]
    assert await token_verifier.verify(texts[1]) is second
    assert await token_verifier.verify(texts[0]) is not first
