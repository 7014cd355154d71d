"""Verifies JSON Web Tokens (RFC 7519) of one configured algorithm."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import jwt

from client_sdk.contract import ErrorCode
from server.access.configuration import AccessConfig
from server.access.key_material import Key, read_public_key, read_secret
from server.access.keys import Fetch, FixedKey, JwksKeys, KeySource, fetch_document
from server.access.principal import NO_CLAIMS, Principal
from server.access.requests import AuthRequest
from server.core.counters import Counters
from server.core.errors import AccessError
from server.ports import Clock
from server.tasks import TaskOwner

_MAX_TOKEN_BYTES = 8192
_MAX_NAME_CHARACTERS = 128
_NAME_RULE = f"1 to {_MAX_NAME_CHARACTERS} printable characters"
_MAX_TIME = 2.0**53
_MAX_GLOBS = 64
_MAX_SCOPES = 64
# Issuers round `iat`, and the clocks of two machines differ.
_ISSUED_AHEAD_SECONDS = 1.0
# A client sends its token for each namespace, and again when it reconnects.
_MAX_VERIFIED = 10_000
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _VerifiedToken(NamedTuple):
    """A verified token's principal, and the key that verified it."""

    kid: str | None
    key: Key
    principal: Principal


class TokenVerifier:
    """Verifies tokens, and caches the principals of recent ones."""

    def __init__(self, config: AccessConfig, keys: KeySource, clock: Clock) -> None:
        self._config = config
        self._keys = keys
        self._clock = clock
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})
        required = ["sub", "exp", "iat", "aud"]
        if config.issuer is not None:
            required.append("iss")
        # Our own checks of times use the injected clock; those of names are stricter.
        self._options = {
            "require": required,
            "verify_sub": False,
            "verify_jti": False,
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        }
        # Least recently used first.
        self._verified: OrderedDict[bytes, _VerifiedToken] = OrderedDict()

    async def verify_client(self, token: str | None, request: AuthRequest) -> Principal | None:
        """The principal of a client by its token alone; None without one. Raises as `verify`."""
        return None if token is None else await self.verify(token)

    async def verify(self, token: str) -> Principal:
        """Verify signature, claims and times; raises `AccessError` if one is wrong."""
        # These come first: they bound the cost of an unauthenticated request.
        if len(token) > _MAX_TOKEN_BYTES:
            raise _invalid("the token is too long")
        if not token.isascii():
            raise _invalid("malformed token")
        # The cache keeps no token that could be stolen and used.
        digest = hashlib.sha256(token.encode()).digest()
        cached = self._verified.get(digest)
        # The signature stays valid while the issuer publishes the same key.
        if cached is not None and await self._keys.key(cached.kid) is cached.key:
            # It can have been evicted during the await.
            self._remember(digest, cached)
            self._check_expiry(cached.principal.expires_at)
            return cached.principal
        try:
            header = _header(token.partition(".")[0])
        except jwt.PyJWTError:
            raise _invalid("malformed token") from None
        # RFC 7515, 4.1.11: we support no critical extension.
        if header.get("alg") != self._config.algorithm or "crit" in header:
            raise _invalid("the token's algorithm is not accepted")
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
            raise _invalid("the token's signature is invalid") from None
        except jwt.PyJWTError:
            raise _invalid("malformed token") from None
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
        token_id = claims.get("jti")
        return Principal(
            user_id=_name(claims, "sub"),
            org=_name(claims, "org") if "org" in claims else "default",
            scopes=_scopes(claims.get("scope", "")),
            expires_at=expires_at,
            symbols=_globs(claims, "symbols"),
            sessions=_globs(claims, "sessions"),
            users=_globs(claims, "users"),
            claims=MappingProxyType(dict(claims)) if self._config.keep_claims else NO_CLAIMS,
            issued_at=float(claims["iat"]),
            # A token with another kind of id can be revoked by its user alone.
            token_id=token_id if isinstance(token_id, str) else None,
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
    config: AccessConfig,
    clock: Clock,
    tasks: TaskOwner | None = None,
    *,
    fetch: Fetch = fetch_document,
) -> TokenVerifier:
    """Build a verifier; raises `ConfigurationError` if the key file is unusable."""
    tasks = tasks or TaskOwner(Counters())
    keys: KeySource
    if config.secret is not None:
        keys = FixedKey(read_secret(config.secret))
    elif config.public_key_file is not None:
        keys = FixedKey(read_public_key(config.public_key_file, config.algorithm))
    else:
        keys = JwksKeys(cast(str, config.jwks_url), config.algorithm, clock, tasks, fetch=fetch)
    return TokenVerifier(config, keys, clock)


# Decoding is the main cost of a token, and all tokens of one key have the same header. Errors are
# not cached; 128 headers of a token take 1 MB at most.
@lru_cache(maxsize=128)
def _header(segment: str) -> Mapping[str, Any]:
    return MappingProxyType(jwt.get_unverified_header(f"{segment}.."))


def _invalid(message: str) -> AccessError:
    return AccessError(ErrorCode.AUTH_INVALID, message)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims[claim]
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _MAX_NAME_CHARACTERS
        or _FORBIDDEN_IN_NAMES.search(value)
    ):
        raise _invalid(f"the token's {claim} must be {_NAME_RULE}")
    return value


def _timestamp(claims: Mapping[str, Any], claim: str) -> float:
    value = claims[claim]
    # RFC 7519, 2: a NumericDate. The bound excludes integers that no float can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_TIME:
        raise _invalid(f"the token's {claim} must be a number of seconds")
    return float(value)


def _scopes(value: object) -> frozenset[str]:
    if not isinstance(value, str):
        raise _invalid("the token's scope must be a string")
    return _split_scopes(value)


# Most clients have the same scopes, and share one set: it is the largest part of a principal.
@lru_cache(maxsize=256)
def _split_scopes(value: str) -> frozenset[str]:
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
        raise _invalid(f"the token's {claim} must be a list of at most {_MAX_GLOBS} patterns")
    return tuple(value)
