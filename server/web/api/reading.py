"""Reads the parts of a request within bounds: query, JSON body, headers."""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError
from server.core.wire.strict_json import MalformedJson, loads
from server.web.api.errors import HttpError

_INTEGER = re.compile(r"-?[0-9]{1,16}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,100}")
_JSON = "application/json"


class ApiRequest(BaseModel):
    """The base of all requests: strict, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _parse_integer(value: object) -> object:
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            raise ValueError("must be an integer")
        return int(value)
    return value


# Reads an integer of a query, where everything is text; the last part of its annotation.
FROM_TEXT = BeforeValidator(_parse_integer)
JsonObject = Annotated[
    dict[str, object],
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/JsonValue"}},
        mode="validation",
    ),
]


def read_request_id(request: web.Request) -> str | None:
    """The client's own id of the request; None if it has none that is fit for logs."""
    value = request.headers.get("X-Request-Id", "")
    return value if _REQUEST_ID.fullmatch(value) else None


def read_idempotency_key(request: web.Request) -> str | None:
    """The `Idempotency-Key`, without quotes; None if there is none."""
    value = request.headers.get("Idempotency-Key")
    if value is None:
        return None
    key = value[1:-1] if len(value) > 2 and value[0] == value[-1] == '"' else value
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise RequestError(
            ErrorCode.REQUEST_INVALID, "Idempotency-Key must be 1 to 100 visible ASCII characters"
        )
    return key


def read_bearer(request: web.Request) -> str | None:
    """The `Authorization` header; raises `RequestError` if there are several."""
    values = request.headers.getall("Authorization", [])
    if len(values) > 1:
        raise RequestError(ErrorCode.REQUEST_INVALID, "several Authorization headers")
    return values[0] if values else None


def check_accept(request: web.Request) -> None:
    """Raise if the client accepts no JSON (RFC 9110, 12.5.1)."""
    accepted = ",".join(request.headers.getall("Accept", []))
    ranges = [each.partition(";")[0].strip().lower() for each in accepted.split(",")]
    if accepted.strip() and not {"*/*", "application/*", _JSON} & set(ranges):
        raise HttpError(406, f"this API answers with {_JSON}: accept that")


def read_query(request: web.Request) -> dict[str, object]:
    """The query as one value a name; raises if one is given twice."""
    values: dict[str, object] = {}
    for name, value in request.query.items():
        if name in values:
            raise RequestError(ErrorCode.REQUEST_INVALID, f"{name[:100]} is given twice")
        values[name] = value
    return values


async def read_object(
    request: web.Request, *, max_bytes: int, timeout_seconds: float
) -> Mapping[str, object]:
    """The JSON object of the body; an empty body is an empty object."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise HttpError(415, "send the body without a Content-Encoding", close=True)
    text = await _read_text(request, max_bytes, timeout_seconds)
    if not text:
        return {}
    # Also the charset: JSON is UTF-8 (RFC 8259, 8.1).
    if request.content_type != _JSON or (request.charset or "utf-8").lower() != "utf-8":
        raise HttpError(415, f"send the body as Content-Type: {_JSON}")
    try:
        value = loads(text)
    except MalformedJson as malformed:
        raise RequestError(ErrorCode.REQUEST_INVALID, malformed.reason) from None
    if not isinstance(value, dict):
        raise RequestError(ErrorCode.REQUEST_INVALID, "the body must be a JSON object")
    return value


async def _read_text(request: web.Request, max_bytes: int, timeout_seconds: float) -> str:
    too_large = HttpError(
        413,
        f"the body may have at most {max_bytes} bytes",
        code=ErrorCode.LIMIT_PAYLOAD,
        close=True,
    )
    if (request.content_length or 0) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise HttpError(408, "the body did not arrive in time", close=True) from None
    except (web.RequestPayloadError, web.PayloadAccessError):
        raise HttpError(400, "the body is malformed", close=True) from None
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise RequestError(ErrorCode.REQUEST_INVALID, "the body is not UTF-8") from None
