"""Verifies tokens: one algorithm, every claim that we rely on, and our own clock."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jwt

from client_sdk.contract import ErrorCode
from server.access.configuration import AccessConfig
from server.access.key_material import Key, read_public_key
from server.access.keys import Fetch, FixedKey, JwksKeys, KeySource, fetch_document
from server.access.principal import Principal
from server.core.errors import AccessError
from server.ports import Clock

_MAX_TOKEN_BYTES = 8192
_MAX_NAME_CHARACTERS = 128
_MAX_TIME = 2.0**53
_MAX_GLOBS = 64
_MAX_SCOPES = 64
# A second of grace: issuers round, and clocks of two machines never agree.
_ISSUED_AHEAD_SECONDS = 1.0
# A client shows its token again and again: in each namespace, and whenever it comes back.
_MAX_VERIFIED = 10_000
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _VerifiedToken(NamedTuple):
    """A token that was found right, and by which key."""

    kid: str | None
    key: Key
    principal: Principal


class TokenVerifier:
    """Turns a token into a principal, or says why it is none."""

    def __init__(self, config: AccessConfig, keys: KeySource, clock: Clock) -> None:
        self._config = config
        self._keys = keys
        self._clock = clock
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})
        required = ["sub", "exp", "iat", "aud"]
        if config.issuer is not None:
            required.append("iss")
        # Times are judged below, by the clock that we were given, and names by our rules.
        self._options = {
            "require": required,
            "verify_sub": False,
            "verify_jti": False,
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        }
        # Least recently shown first.
        self._verified: OrderedDict[bytes, _VerifiedToken] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """Check signature, claims and times."""
        # Both come before anything else: they are all that a stranger can make us pay.
        if len(token) > _MAX_TOKEN_BYTES:
            raise _invalid("the token is too long")
        if not token.isascii():
            raise _invalid("the token cannot be read")
        # Nothing is kept that could be shown in our place.
        digest = hashlib.sha256(token.encode()).digest()
        seen = self._verified.get(digest)
        # Its signature stays right for as long as the issuer would have it judged by the same key.
        if seen is not None and await self._keys.key(seen.kid) is seen.key:
            # It may have had to make room meanwhile.
            self._remember(digest, seen)
            self._check_expiry(seen.principal.expires_at)
            return seen.principal
        try:
            # Of the head alone: the rest is decoded below, and decoding is what a token costs.
            header = jwt.get_unverified_header(f"{token.partition('.')[0]}..")
        except jwt.PyJWTError:
            raise _invalid("the token cannot be read") from None
        if header.get("alg") != self._config.algorithm or "crit" in header:
            raise _invalid("the token is not signed as this server demands")
        key = await self._keys.key(header.get("kid"))
        try:
            claims = self._jwt.decode(
                token,
                key,
                algorithms=[self._config.algorithm],
                audience=self._config.audience,
                issuer=self._config.issuer,
                options=cast(Any, self._options),
            )
        except jwt.MissingRequiredClaimError as error:
            raise _invalid(f"the token has no {error.claim}") from None
        except jwt.InvalidAudienceError:
            raise _invalid("the token is for another audience") from None
        except jwt.InvalidIssuerError:
            raise _invalid("the token is from another issuer") from None
        except jwt.InvalidSignatureError:
            raise _invalid("the token's signature is not right") from None
        except jwt.PyJWTError:
            raise _invalid("the token cannot be read") from None
        principal = self._principal(claims)
        self._remember(digest, _VerifiedToken(header.get("kid"), key, principal))
        return principal

    def _remember(self, digest: bytes, verified: _VerifiedToken) -> None:
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        if len(self._verified) > _MAX_VERIFIED:
            self._verified.popitem(last=False)

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        expires_at = self._check_times(claims)
        return Principal(
            user_id=_name(claims, "sub"),
            org=_name(claims, "org") if "org" in claims else "default",
            scopes=_scopes(claims.get("scope", "")),
            expires_at=expires_at,
            symbols=_globs(claims, "symbols"),
            sessions=_globs(claims, "sessions"),
        )

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        now = self._clock.time()
        leeway = self._config.leeway_seconds
        expires_at = _timestamp(claims, "exp")
        self._check_expiry(expires_at)
        if _timestamp(claims, "iat") > now + leeway + _ISSUED_AHEAD_SECONDS:
            raise _invalid("the token was issued in the future")
        if "nbf" in claims and _timestamp(claims, "nbf") > now + leeway:
            raise _invalid("the token is not valid yet")
        return expires_at

    def _check_expiry(self, expires_at: float) -> None:
        if self._clock.time() >= expires_at + self._config.leeway_seconds:
            raise AccessError(ErrorCode.AUTH_EXPIRED, "the token has expired")


def build_verifier(
    config: AccessConfig, clock: Clock, *, fetch: Fetch = fetch_document
) -> TokenVerifier:
    """A verifier with the source of keys that the configuration names."""
    keys: KeySource
    if config.secret is not None:
        keys = FixedKey(config.secret)
    elif config.public_key_file is not None:
        keys = FixedKey(read_public_key(config.public_key_file, config.algorithm))
    else:
        keys = JwksKeys(cast(str, config.jwks_url), config.algorithm, clock, fetch=fetch)
    return TokenVerifier(config, keys, clock)


def _invalid(message: str) -> AccessError:
    return AccessError(ErrorCode.AUTH_INVALID, message)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims[claim]
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _MAX_NAME_CHARACTERS
        or _FORBIDDEN_IN_NAMES.search(value)
    ):
        raise _invalid(f"the token's {claim} is not a name")
    return value


def _timestamp(claims: Mapping[str, Any], claim: str) -> float:
    value = claims[claim]
    # The bound also keeps out integers that no float can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_TIME:
        raise _invalid(f"the token's {claim} is not a time")
    return float(value)


def _scopes(value: object) -> frozenset[str]:
    if not isinstance(value, str):
        raise _invalid("the token's scope is not a text")
    scopes = value.split(" ", _MAX_SCOPES)
    if len(scopes) > _MAX_SCOPES:
        raise _invalid("the token has too many scopes")
    return frozenset(filter(None, scopes))


def _globs(claims: Mapping[str, Any], claim: str) -> tuple[str, ...] | None:
    if claim not in claims:
        return None
    value = claims[claim]
    if (
        not isinstance(value, list)
        or len(value) > _MAX_GLOBS
        or not all(isinstance(glob, str) and len(glob) <= _MAX_NAME_CHARACTERS for glob in value)
    ):
        raise _invalid(f"the token's {claim} is not a list of patterns")
    return tuple(value)
