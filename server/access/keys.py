"""Where verification keys come from: a secret, a file, or a JWKS that may change."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import ClientError, ClientSession, ClientTimeout

from client_sdk.contract import ErrorCode
from server.access.key_material import Key, read_jwks
from server.core.errors import AccessError
from server.ports import Clock

logger = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]

_FETCH_SECONDS = 5.0
_MAX_JWKS_BYTES = 256 * 1024
_CACHE_SECONDS = 300.0
# Tokens with made-up key ids must not make us hammer the issuer.
_MIN_REFRESH_INTERVAL_SECONDS = 10.0


class KeySource(Protocol):
    """Gives the key for a token's key id."""

    async def key(self, kid: str | None) -> Key:
        """The key to verify with; raises `AccessError` where there is none."""


class FixedKey:
    """One key for every token, whatever key id it names; never suspends."""

    def __init__(self, key: Key) -> None:
        self._key = key

    async def key(self, kid: str | None) -> Key:
        return self._key


class JwksKeys:
    """The keys that an issuer publishes: cached, and fetched anew for an unknown key id."""

    def __init__(
        self,
        url: str,
        algorithm: str,
        clock: Clock,
        *,
        fetch: Fetch,
        fetch_seconds: float = _FETCH_SECONDS,
    ) -> None:
        self._url = url
        self._algorithm = algorithm
        self._clock = clock
        self._fetch = fetch
        self._fetch_seconds = fetch_seconds
        self._keys: tuple[tuple[str | None, Key], ...] = ()
        self._fetched_at: float | None = None
        self._fresh_until: float | None = None
        self._refresh_task: asyncio.Task[None] | None = None

    async def key(self, kid: str | None) -> Key:
        key = self._find(kid)
        if key is None or self._is_stale():
            await self._refresh()
            key = self._find(kid)
        if key is None:
            raise AccessError(ErrorCode.AUTH_INVALID, "the token's key is not known")
        return key

    def _find(self, kid: str | None) -> Key | None:
        """The one key that fits; of several, nobody can say which is meant."""
        fitting = [key for known, key in self._keys if kid is None or kid == known]
        return fitting[0] if len(fitting) == 1 else None

    def _is_stale(self) -> bool:
        return self._fresh_until is None or self._clock.monotonic() >= self._fresh_until

    async def _refresh(self) -> None:
        if self._refresh_task is None:
            now = self._clock.monotonic()
            if (
                self._fetched_at is not None
                and now < self._fetched_at + _MIN_REFRESH_INTERVAL_SECONDS
            ):
                return
            self._fetched_at = now
            self._refresh_task = asyncio.create_task(self._load(), name="floorcast-jwks")
        # A task of its own, because HTTP clients need one, and because whoever asked first may
        # go away: a refresh broken off by that would leave all without keys for a whole pause.
        await asyncio.shield(self._refresh_task)

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(self._fetch_seconds):
                document = await self._fetch(self._url)
            keys = read_jwks(document, self._algorithm)
        except (OSError, ClientError, ValueError) as error:
            # The old keys stay: an issuer that is away must not lock everybody out.
            logger.warning("could not fetch the JWKS", extra={"error": type(error).__name__})
        else:
            if not keys:
                logger.warning("the JWKS has no key for the configured algorithm")
            self._keys = keys
            self._fresh_until = self._clock.monotonic() + _CACHE_SECONDS
        finally:
            self._refresh_task = None


async def fetch_document(url: str) -> bytes:
    """GET a small document, with a limit on time and size; redirects are not followed."""
    # Not compressed, or the limit on the size would be found out too late.
    async with (
        ClientSession(
            timeout=ClientTimeout(total=_FETCH_SECONDS),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        ) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise ValueError("the JWKS is not there")
        document = bytearray()
        async for chunk in response.content.iter_any():
            document += chunk
            if len(document) > _MAX_JWKS_BYTES:
                raise ValueError("the JWKS is too large")
        return bytes(document)
