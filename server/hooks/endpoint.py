"""Posts signed JSON to one URL of the operator, with limits on time and size."""

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from server.hooks.signature import HEADER, signature
from server.ports import Clock

_MAX_REPLY_BYTES = 64 * 1024


class EndpointError(Exception):
    """The endpoint did not accept a request; the text says why, without the URL or the body."""

    def __init__(self, reason: str, *, is_reached: bool) -> None:
        super().__init__(reason)
        # Whether it has answered at all.
        self.is_reached = is_reached


class Endpoint:
    """One URL; follows no redirects and keeps no cookies."""

    def __init__(
        self, url: str, secret: str, clock: Clock, *, timeout_seconds: float, connections: int
    ) -> None:
        self._url = url
        self._secret = secret
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._connections = connections
        self._session: ClientSession | None = None

    async def start(self) -> None:
        """Prepare requests; none is made yet."""
        self._session = ClientSession(
            timeout=ClientTimeout(total=self._timeout_seconds),
            connector=TCPConnector(limit=self._connections),
            cookie_jar=DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "Content-Type": "application/json"},
            auto_decompress=False,
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, body: bytes) -> bytes:
        """Post a body; returns the reply's. Must be called in a task.

        Raises `EndpointError` unless the status is 2xx, and the reply short and in time.
        """
        if self._session is None:
            raise EndpointError("not started", is_reached=False)
        headers = {HEADER: signature(self._secret, body, self._clock.time())}
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if not 200 <= response.status < 300:
                    raise EndpointError(f"status {response.status}", is_reached=True)
                reply = bytearray()
                async for chunk in response.content.iter_any():
                    reply += chunk
                    if len(reply) > _MAX_REPLY_BYTES:
                        raise EndpointError("the reply is too large", is_reached=True)
                return bytes(reply)
        except TimeoutError:
            raise EndpointError("no answer in time", is_reached=False) from None
        except (ClientError, OSError, ValueError) as error:
            # Without its text, which may quote the URL.
            raise EndpointError(type(error).__name__, is_reached=False) from None
