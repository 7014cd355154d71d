"""The guards of the pipeline: errors, metrics, authentication, rate limit, validation."""

import logging
import secrets
from collections.abc import Mapping
from typing import Protocol

from pydantic import ValidationError

from client_sdk.contract import ErrorCode
from server.access import Principal, anonymous, find_token
from server.core.counters import Counters
from server.core.errors import AccessError, FloorcastError, LimitError, RequestError
from server.core.limits.events import EventLimits, RateOutcome
from server.core.wire.validation import invalid_request
from server.ports import Clock
from server.sockets.pipeline import Call, Guard, Handler, Reply, Route
from server.transport import ConnectionRefused

logger = logging.getLogger(__name__)

_UNKNOWN = "(unknown)"


class Verifier(Protocol):
    """Turns a token into a principal."""

    async def verify(self, token: str) -> Principal:
        """Raises `AccessError` for a token that is none."""


def errors() -> Guard:
    """Make every failure an answer: a refusal while connecting, an error ack afterwards."""

    async def guard(call: Call, proceed: Handler) -> Reply:
        try:
            return await proceed(call)
        except FloorcastError as error:
            body = error.body()
        except Exception:
            # The client gets an id and nothing else; the log has the same id and the rest.
            incident = secrets.token_hex(6)
            logger.exception(
                "a handler failed",
                extra={"incident": incident, "namespace": call.namespace, "event": call.event},
            )
            body = FloorcastError(
                ErrorCode.SERVER_INTERNAL,
                f"something went wrong here; incident {incident}",
                details={"incident": incident},
            ).body()
        if call.is_connect:
            raise ConnectionRefused(body["message"], body)
        return {"ok": False, "error": body}

    return guard


def metrics(counters: Counters, clock: Clock, routes: Mapping[str, Route]) -> Guard:
    """Count every call with its outcome and its time."""

    async def guard(call: Call, proceed: Handler) -> Reply:
        began = clock.monotonic()
        outcome = "ok"
        try:
            return await proceed(call)
        except FloorcastError as error:
            outcome = error.code.value
            raise
        except Exception:
            outcome = ErrorCode.SERVER_INTERNAL.value
            raise
        finally:
            # A client chooses the names of its events: unknown ones are counted as one.
            event = call.event if call.is_connect or call.event in routes else _UNKNOWN
            counters.count_event(call.namespace, event, outcome, clock.monotonic() - began)

    return guard


def authentication(
    verifier: Verifier, clock: Clock, *, anonymous_allowed: bool, grace_seconds: float
) -> Guard:
    """Know who calls: from the token while connecting, from the connection afterwards."""

    async def guard(call: Call, proceed: Handler) -> Reply:
        if call.client is None:
            origin = call.link.request
            payload = call.arguments[0]
            token = find_token(payload, origin.authorization, origin.query_token)
            if token is not None:
                call.principal = await verifier.verify(token)
            elif anonymous_allowed:
                call.principal = anonymous()
            else:
                raise AccessError(ErrorCode.AUTH_MISSING, "connecting needs a token")
        else:
            call.principal = call.client.principal
            if clock.time() >= call.principal.expires_at + grace_seconds:
                raise AccessError(ErrorCode.AUTH_EXPIRED, "the token has expired")
        return await proceed(call)

    return guard


def rate_limit(limits: EventLimits, clock: Clock) -> Guard:
    """Refuse who sends too much, and end who does not stop. Connecting was counted before."""

    async def guard(call: Call, proceed: Handler) -> Reply:
        if call.client is not None:
            verdict, retry_after_ms = limits.check(call.connection_id, clock.monotonic())
            if verdict is not RateOutcome.GRANTED:
                error = LimitError(
                    ErrorCode.LIMIT_RATE, "too many events", retry_after_ms=retry_after_ms
                )
                if verdict is RateOutcome.FLOODING:
                    call.link.disconnect(error, reconnect=True)
                raise error
        return await proceed(call)

    return guard


def validation(routes: Mapping[str, Route], connect: Route) -> Guard:
    """Find the route and give the payload the shape that it names."""

    async def guard(call: Call, proceed: Handler) -> Reply:
        route = connect if call.is_connect else routes.get(call.event)
        if route is None:
            raise RequestError(ErrorCode.REQUEST_UNKNOWN_EVENT, "there is no such event here")
        if len(call.arguments) > 1:
            raise RequestError(ErrorCode.REQUEST_INVALID, "an event takes one object")
        payload = call.arguments[0] if call.arguments else None
        try:
            call.request = route.model.model_validate({} if payload is None else payload)
        except ValidationError as error:
            raise invalid_request(error) from None
        return await proceed(call)

    return guard
