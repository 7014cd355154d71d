"""The sources of verification keys: a fixed key, or the JWKS of an issuer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import ClientError, ClientSession, ClientTimeout

from client_sdk.contract import ErrorCode
from server.access.key_material import Key, read_jwks
from server.core.errors import AccessError
from server.ports import Clock
from server.tasks import TaskOwner

logger = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]

_FETCH_SECONDS = 5.0
_MAX_JWKS_BYTES = 256 * 1024
_CACHE_SECONDS = 300.0
# Tokens with forged key ids must not flood the issuer with requests.
_MIN_REFRESH_INTERVAL_SECONDS = 10.0


class KeySource(Protocol):
    """A source of verification keys."""

    async def key(self, kid: str | None) -> Key:
        """The key for a token's key id; raises `AccessError` if there is none."""


class FixedKey:
    """One key for every token and every key id; never suspends."""

    def __init__(self, key: Key) -> None:
        self._key = key

    async def key(self, kid: str | None) -> Key:
        return self._key


class JwksKeys:
    """The published keys of an issuer: cached, and fetched again for an unknown key id."""

    def __init__(
        self,
        url: str,
        algorithm: str,
        clock: Clock,
        tasks: TaskOwner,
        *,
        fetch: Fetch,
        fetch_seconds: float = _FETCH_SECONDS,
    ) -> None:
        self._url = url
        self._algorithm = algorithm
        self._clock = clock
        self._tasks = tasks
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
            raise AccessError(ErrorCode.AUTH_INVALID, "the token's key is unknown")
        return key

    def _find(self, kid: str | None) -> Key | None:
        """The key with this id, or None if no key or more than one matches."""
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
            self._refresh_task = self._tasks.start(self._load(), "floorcast-jwks")
        # A task of its own: aiohttp needs one, and if the first caller is cancelled, the refresh
        # must not be: the next one is allowed only after the refresh interval.
        await asyncio.shield(self._refresh_task)

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(self._fetch_seconds):
                document = await self._fetch(self._url)
            keys = read_jwks(document, self._algorithm)
        except (OSError, ClientError, ValueError) as error:
            # Keep the old keys: an unreachable issuer must not lock out every client.
            logger.warning("could not fetch the JWKS", extra={"error": type(error).__name__})
        else:
            if not keys:
                logger.warning("the JWKS has no key for the configured algorithm")
            self._keys = keys
            self._fresh_until = self._clock.monotonic() + _CACHE_SECONDS
        finally:
            self._refresh_task = None


async def fetch_document(url: str) -> bytes:
    """GET a document of at most 256 KiB within 5 s; does not follow redirects.

    Raises `ValueError` if the status is not 200 or the document is too large.
    """
    # Uncompressed, so that the size limit holds while reading.
    async with (
        ClientSession(
            timeout=ClientTimeout(total=_FETCH_SECONDS),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        ) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise ValueError(f"the JWKS request failed with status {response.status}")
        document = bytearray()
        async for chunk in response.content.iter_any():
            document += chunk
            if len(document) > _MAX_JWKS_BYTES:
                raise ValueError("the JWKS is too large")
        return bytes(document)
