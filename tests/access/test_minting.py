"""Tests minting of tokens and secrets."""

import jwt
import pytest

from client_sdk.contract import Scope
from server.access import AccessConfig, ConfigurationError, build_verifier, mint, new_secret
from server.core.errors import AccessError
from tests.access.forge import SECRET
from tests.kit.clock import START, ManualClock


async def test_minted_token_is_accepted() -> None:
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
        users=["desk-*"],
    )
    config = AccessConfig(secret=SECRET, audience="elsewhere", issuer="us")
    principal = await build_verifier(config, clock).verify(text)
    assert (principal.user_id, principal.org) == ("ann", "acme")
    assert principal.scopes == {"market:read", "session:join"}
    assert (principal.symbols, principal.sessions) == (("BTC*",), ())
    assert principal.users == ("desk-*",)
    assert principal.expires_at == START + 60


async def test_minted_token_expires_after_its_ttl() -> None:
    clock = ManualClock()
    text = mint(SECRET, subject="ann", scopes=[], clock=clock, ttl_seconds=60)
    verifier = build_verifier(AccessConfig(secret=SECRET), clock)
    clock.advance(59.75)
    assert await verifier.verify(text)
    clock.advance(0.25)
    with pytest.raises(AccessError, match="expired"):
        await verifier.verify(text)


def test_minted_token_has_no_other_claims() -> None:
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


def test_new_secret_is_unique_and_strong() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    for secret in made:
        AccessConfig(secret=secret)
        with pytest.raises(ConfigurationError):
            AccessConfig(secret=secret[:31])
