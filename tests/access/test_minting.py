"""Tokens that are made here are taken here, and say just what was asked."""

import jwt
import pytest

from client_sdk.contract import Scope
from server.access import AccessConfig, ConfigurationError, build_verifier, mint, new_secret
from server.core.errors import AccessError
from tests.access.forge import SECRET
from tests.kit.clock import START, ManualClock


async def test_a_token_that_was_made_here_is_taken() -> None:
    clock = ManualClock()
    text = mint(
        SECRET,
        subject="ann",
        scopes=[Scope.MARKET_READ, Scope.SESSION_JOIN],
        clock=clock,
        ttl_seconds=60,
        org="acme",
        audience="elsewhere",
        issuer="us",
        symbols=["BTC*"],
        sessions=[],
    )
    config = AccessConfig(secret=SECRET, audience="elsewhere", issuer="us")
    principal = await build_verifier(config, clock).verify(text)
    assert (principal.user_id, principal.org) == ("ann", "acme")
    assert principal.scopes == {"market:read", "session:join"}
    assert (principal.symbols, principal.sessions) == (("BTC*",), ())
    assert principal.expires_at == START + 60


async def test_a_token_lives_as_long_as_was_asked() -> None:
    clock = ManualClock()
    text = mint(SECRET, subject="ann", scopes=[], clock=clock, ttl_seconds=60)
    judge = build_verifier(AccessConfig(secret=SECRET), clock)
    clock.advance(59.75)
    assert await judge.verify(text)
    clock.advance(0.25)
    with pytest.raises(AccessError, match="expired"):
        await judge.verify(text)


def test_what_was_not_asked_for_is_not_in_the_token() -> None:
    text = mint(SECRET, subject="ann", scopes=[], clock=ManualClock(), ttl_seconds=60)
    claims = jwt.decode(text, options={"verify_signature": False})
    assert claims == {
        "sub": "ann",
        "org": "default",
        "aud": "floorcast",
        "iat": START,
        "exp": START + 60,
        "scope": "",
    }
    assert jwt.get_unverified_header(text)["alg"] == "HS256"


def test_every_secret_is_new_and_strong_enough_to_configure() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    for secret in made:
        AccessConfig(secret=secret)
        with pytest.raises(ConfigurationError):
            AccessConfig(secret=secret[:31])
