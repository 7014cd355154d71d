"""Asks the server's HTTP API."""

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote, urlencode

import aiohttp

from client_sdk.errors import ProtocolError, ServerUnavailable, error_from_code
from client_sdk.tools.options import Target

_TIMEOUT_SECONDS = 10.0
_BASE = "/api/v1"


def path(*parts: str, **query: str | int | None) -> str:
    """A path of the API from raw parts."""
    given = {name: value for name, value in query.items() if value is not None}
    joined = "/".join(quote(each, safe=":@") for each in parts)
    return f"{_BASE}/{joined}" + (f"?{urlencode(given)}" if given else "")


class Api:
    """The HTTP API of one server; open it with `async with`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS), trust_env=True
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._http is not None
        await self._http.close()

    async def get(self, where: str) -> dict[str, object]:
        """GET a path; raises the `FloorcastError` that the server answers."""
        return await self._request("GET", where, None)

    async def post(self, where: str, body: Mapping[str, object]) -> dict[str, object]:
        """POST a JSON object to a path; raises the `FloorcastError` that the server answers."""
        return await self._request("POST", where, body)

    async def _request(
        self, method: str, where: str, body: Mapping[str, object] | None
    ) -> dict[str, object]:
        assert self._http is not None
        headers = {}
        if self._target.token is not None:
            headers["Authorization"] = f"Bearer {self._target.token}"
        url = self._target.url + where
        try:
            async with self._http.request(method, url, json=body, headers=headers) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            raise ServerUnavailable(f"cannot reach {self._target.url}: {reason}") from None
        answer = _parse(text, url)
        error_body = answer.get("error")
        if isinstance(error_body, dict):
            raise error_from_code(
                str(error_body.get("code", "server.internal")),
                str(error_body.get("message", "")),
                cast("int | None", error_body.get("retry_after_ms")),
                cast("Mapping[str, object] | None", error_body.get("details")),
            )
        if response.status >= 400:
            raise ProtocolError(f"{url} answered {response.status}")
        return answer


def _parse(text: str, url: str) -> dict[str, object]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ProtocolError(f"{url} is no API of Floorcast: it answered no JSON object")
    return answer
