"""Where verification keys come from: a secret, a file, or a JWKS that may change."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import jwt
import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout

from client_sdk.contract import ErrorCode
from server.access.configuration import ConfigurationError
from server.core.errors import AccessError
from server.ports import Clock

logger = logging.getLogger(__name__)

Key = jwt.PyJWK | str | bytes
Fetch = Callable[[str], Awaitable[bytes]]

_KEY_TYPES = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
_MIN_RSA_BITS = 2048
_FETCH_SECONDS = 5.0
_MAX_JWKS_BYTES = 256 * 1024
_FRESH_SECONDS = 300.0
# Tokens with made-up key ids must not make us hammer the issuer.
_REFRESH_PAUSE_SECONDS = 10.0


class KeySource(Protocol):
    """Gives the key for a token's key id."""

    async def key(self, kid: str | None) -> Key:
        """The key to verify with; raises `AccessError` where there is none."""


class FixedKey:
    """One key for every token."""

    def __init__(self, key: Key) -> None:
        self._key = key

    async def key(self, kid: str | None) -> Key:
        return self._key


def read_public_key(path: Path, algorithm: str) -> FixedKey:
    """Load a PEM file and check that it is a public key fit for the algorithm."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"auth.public_key_file: {error.strerror}: {path}") from None
    if b"PRIVATE KEY" in pem:
        raise ConfigurationError("auth.public_key_file holds a private key; give the public one")
    implementation = jwt.get_algorithm_by_name(algorithm)
    try:
        key = implementation.prepare_key(pem)
    except (ValueError, TypeError, jwt.PyJWTError):
        raise ConfigurationError(f"auth.public_key_file is no key for {algorithm}") from None
    if getattr(key, "key_size", _MIN_RSA_BITS) < _MIN_RSA_BITS and algorithm == "RS256":
        raise ConfigurationError(f"auth.public_key_file: RSA needs {_MIN_RSA_BITS} bits")
    return FixedKey(pem)


class JwksKeys:
    """The keys that an issuer publishes: cached, and fetched anew for an unknown key id."""

    def __init__(self, url: str, algorithm: str, clock: Clock, *, fetch: Fetch) -> None:
        self._url = url
        self._algorithm = algorithm
        self._clock = clock
        self._fetch = fetch
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._tried_at: float | None = None
        self._fresh_until = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._waiting = 0

    async def key(self, kid: str | None) -> Key:
        now = self._clock.monotonic()
        if now >= self._fresh_until or self._find(kid) is None:
            await self._refresh(now)
        key = self._find(kid)
        if key is None:
            raise AccessError(ErrorCode.AUTH_INVALID, "the token's key is not known")
        return key

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _refresh(self, now: float) -> None:
        """One fetch for everybody who waits, in a task of its own: HTTP clients need one."""
        if self._refreshing is None:
            if self._tried_at is not None and now < self._tried_at + _REFRESH_PAUSE_SECONDS:
                return
            self._tried_at = now
            self._refreshing = asyncio.get_running_loop().create_task(
                self._load(now), name="floorcast-jwks"
            )
        refreshing = self._refreshing
        self._waiting += 1
        try:
            await asyncio.shield(refreshing)
        finally:
            self._waiting -= 1
            if not self._waiting:
                # Done by now, or everybody who wanted it has left.
                refreshing.cancel()
                self._refreshing = None

    async def _load(self, now: float) -> None:
        try:
            keys = self._read(await self._fetch(self._url))
        except (OSError, ClientError, TimeoutError, ValueError) as error:
            # The old keys stay: an issuer that is away must not lock everybody out.
            logger.warning("could not fetch the JWKS", extra={"error": type(error).__name__})
            return
        self._keys = keys
        self._fresh_until = now + _FRESH_SECONDS

    def _read(self, document: bytes) -> dict[str | None, jwt.PyJWK]:
        body = orjson.loads(document)
        if not isinstance(body, dict) or not isinstance(body.get("keys"), list):
            raise ValueError("not a JWKS")
        keys: dict[str | None, jwt.PyJWK] = {}
        for each in body["keys"]:
            if not isinstance(each, dict) or each.get("kty") != _KEY_TYPES[self._algorithm]:
                continue
            if each.get("use", "sig") != "sig":
                continue
            if each.get("alg", self._algorithm) != self._algorithm:
                continue
            try:
                key = jwt.PyJWK(each, algorithm=self._algorithm)
            except jwt.PyJWTError:
                continue
            if getattr(key.key, "key_size", _MIN_RSA_BITS) >= _MIN_RSA_BITS or (
                self._algorithm != "RS256"
            ):
                keys[each.get("kid")] = key
        return keys


async def fetch_document(url: str) -> bytes:
    """GET a small document, with a limit on time and size."""
    async with (
        ClientSession(timeout=ClientTimeout(total=_FETCH_SECONDS)) as session,
        session.get(url, raise_for_status=True) as response,
    ):
        document = await response.content.read(_MAX_JWKS_BYTES + 1)
        while chunk := await response.content.read(_MAX_JWKS_BYTES):
            document += chunk
            if len(document) > _MAX_JWKS_BYTES:
                raise ValueError("the JWKS is too large")
        return document
