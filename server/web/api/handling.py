"""Serves the endpoints: every request is limited, authorized, validated and counted."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import orjson
from aiohttp import web
from pydantic import ValidationError

from client_sdk.contract import ErrorCode
from server.access import Principal, Verifier, find_token
from server.core.counters import Counters
from server.core.errors import AccessError, FloorcastError, LimitError, RequestError
from server.core.wire.validation import invalid_request
from server.ports import Clock
from server.transport.proxies import TrustedProxies
from server.web.api.endpoints import AnyEndpoint, ApiCall
from server.web.api.errors import error_response, from_aiohttp, internal_error
from server.web.api.limits import RequestLimits
from server.web.api.reading import (
    check_accept,
    read_bearer,
    read_idempotency_key,
    read_object,
    read_query,
    read_request_id,
)

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# The namespace of the counters.
API = "http"
# The outcome of a request whose client has gone.
CANCELLED = "cancelled"
_REQUEST_ID = web.RequestKey("floorcast_request_id", str)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Bounds of a request."""

    body_bytes: int
    # The time to send a body, and to read an answer.
    transfer_seconds: float
    trusted_proxies: tuple[str, ...] = ()
    # Longer than any part may wait for the broker or for other nodes.
    request_seconds: float = 10.0


class PartialFailure(Exception):
    """An error answer that also has the outcomes of what succeeded."""

    def __init__(self, error: FloorcastError, fields: Mapping[str, object], status: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.fields = fields
        self.status = status


class ApiHandler:
    """Runs the handlers of endpoints inside all checks."""

    def __init__(
        self,
        config: ApiConfig,
        verifier: Verifier,
        limits: RequestLimits,
        counters: Counters,
        clock: Clock,
    ) -> None:
        self._config = config
        self._verifier = verifier
        self._limits = limits
        self._counters = counters
        self._clock = clock
        self._proxies = TrustedProxies(config.trusted_proxies)

    def serve(self, endpoint: AnyEndpoint) -> Handler:
        """The aiohttp handler of an endpoint."""

        async def handle(request: web.Request) -> web.Response:
            began = self._clock.monotonic()
            outcome = CANCELLED
            try:
                response = await self._serve(endpoint, request)
                outcome = "ok"
                return response
            except Exception as failure:
                outcome = _outcome_of(failure)
                raise
            finally:
                seconds = self._clock.monotonic() - began
                self._counters.count_event(API, endpoint.name, outcome, seconds)
                logger.debug(
                    "handled a request",
                    extra={
                        "request": request[_REQUEST_ID],
                        "endpoint": endpoint.name,
                        "outcome": outcome,
                    },
                )

        return handle

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer every failure in one shape, also of paths and methods that do not exist."""
        request_id = read_request_id(request) or secrets.token_hex(8)
        request[_REQUEST_ID] = request_id
        ip = self._client_ip(request)
        try:
            with self._limits.open_request(ip):
                self._limits.check_address(ip)
                return await self._send(request, await self._answer(request, handler))
        except LimitError as error:
            return await self._send(request, error_response(error))

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request; every failure becomes an answer."""
        try:
            return await handler(request)
        except FloorcastError as error:
            return error_response(error)
        except PartialFailure as failure:
            return error_response(failure.error, failure.fields, failure.status)
        except web.HTTPException as error:
            return error_response(from_aiohttp(error))
        except TimeoutError:
            return error_response(
                FloorcastError(
                    ErrorCode.SERVER_OVERLOADED,
                    "the request took too long: its outcome is unknown",
                )
            )
        except Exception as failure:
            return error_response(internal_error(request.path, request[_REQUEST_ID], failure))

    async def _send(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """Send an answer; a client that does not read it in time is cut off."""
        response.headers["X-Request-Id"] = request[_REQUEST_ID]
        try:
            async with asyncio.timeout(self._config.transfer_seconds):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _serve(self, endpoint: AnyEndpoint, request: web.Request) -> web.Response:
        check_accept(request)
        principal = await self._authenticate(request)
        self._limits.check_user(principal)
        principal.require(endpoint.scope)
        parameters = await self._read(endpoint, request)
        try:
            model = endpoint.request.model_validate(parameters)
        except ValidationError as error:
            raise invalid_request(error) from None
        call = ApiCall(
            principal,
            request[_REQUEST_ID],
            read_idempotency_key(request) if endpoint.method == "POST" else None,
            lambda count: self._limits.charge_items(principal, count),
        )
        if endpoint.is_audited:
            org, user_id = principal.user
            logger.info(
                "%s requested",
                endpoint.name,
                extra={"request": call.request_id, "org": org, "user": user_id},
            )
        async with asyncio.timeout(self._config.request_seconds):
            answer = await endpoint.handle(call, model)
        return web.Response(
            body=orjson.dumps(answer.model_dump(exclude_none=True)),
            content_type="application/json",
        )

    async def _authenticate(self, request: web.Request) -> Principal:
        token = find_token(None, read_bearer(request), None)
        if token is None:
            raise AccessError(ErrorCode.AUTH_MISSING, "send a token as Authorization: Bearer TOKEN")
        async with asyncio.timeout(self._config.request_seconds):
            return await self._verifier.verify(token)

    async def _read(self, endpoint: AnyEndpoint, request: web.Request) -> dict[str, object]:
        query = read_query(request)
        fields: Mapping[str, object] = query
        if endpoint.has_body:
            if query:
                raise RequestError(ErrorCode.REQUEST_INVALID, "send the fields in the body")
            fields = await read_object(
                request,
                max_bytes=self._config.body_bytes,
                timeout_seconds=self._config.transfer_seconds,
            )
        path = {name: request.match_info[name] for name in endpoint.path_fields}
        for name in path:
            if name in fields:
                raise RequestError(ErrorCode.REQUEST_INVALID, f"{name}: it stands in the path")
        return {**fields, **path}

    def _client_ip(self, request: web.Request) -> str:
        forwarded = request.headers.getall("X-Forwarded-For", None)
        return self._proxies.client_address(
            request.remote or "", None if forwarded is None else ",".join(forwarded)
        )


def _outcome_of(failure: Exception) -> str:
    """The outcome of a request as counters name it: the code of its error."""
    if isinstance(failure, PartialFailure):
        return failure.error.code.value
    if isinstance(failure, FloorcastError):
        return failure.code.value
    code = ErrorCode.SERVER_INTERNAL
    if isinstance(failure, TimeoutError):
        code = ErrorCode.SERVER_OVERLOADED
    return code.value
