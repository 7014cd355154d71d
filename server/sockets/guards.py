"""Guards of the pipeline: errors, metrics, authentication, rate limit and validation."""

import logging
import secrets
from typing import Protocol, cast

from pydantic import ValidationError

from client_sdk.contract import ErrorCode, Publish, Subscribe, Unsubscribe, WillRequest
from server.access import AuthRequest, Principal, anonymous, find_token
from server.core.counters import Counters
from server.core.errors import AccessError, FloorcastError, RequestError
from server.core.limits.events import EventLimits
from server.core.wire.validation import invalid_request
from server.ports import Clock
from server.sockets.pipeline import (
    AnyRoute,
    ApplicationGuard,
    Call,
    Guard,
    Handler,
    Reply,
    Result,
    Routes,
)
from server.tasks import run_foreign
from server.transport import Connection, ConnectionRefused, RefusalLog

logger = logging.getLogger(__name__)

UNKNOWN_EVENT = "(unknown)"
# The outcome of a call whose connection ended before its reply.
CANCELLED = "cancelled"


class Verifier(Protocol):
    """Verifies tokens."""

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token; raises `AccessError` if the token is invalid."""

    async def verify_client(self, token: str | None, request: AuthRequest) -> Principal | None:
        """Return the principal of a client, None if it has no token and nothing else to go by.

        Raises `AccessError` if it is refused.
        """


def internal_error(namespace: str, event: str, failure: Exception) -> FloorcastError:
    """Log a failure; the client gets only an incident id, by which the log has the details."""
    incident = secrets.token_hex(6)
    logger.error(
        "a handler failed",
        extra={"incident": incident, "namespace": namespace, "event": event},
        exc_info=failure,
    )
    return FloorcastError(
        ErrorCode.SERVER_INTERNAL,
        f"internal error; quote incident {incident}",
        details={"incident": incident},
    )


def errors(refusals: RefusalLog) -> Guard:
    """Turn every failure into a reply: CONNECT_ERROR for a connect, an error ack for an event.

    A refused connect is logged.
    """

    async def guard(call: Call, proceed: Handler) -> Result:
        try:
            return await proceed(call)
        except FloorcastError as error:
            refused = error
        except Exception as failure:
            refused = internal_error(call.namespace, call.event, failure)
        if call.is_connect:
            refusals.record(refused.code.value, refused.message, call.link.request.ip)
            raise ConnectionRefused(refused.message, refused.body())
        return {"ok": False, "error": refused.body()}

    return guard


def metrics(counters: Counters, clock: Clock, routes: Routes) -> Guard:
    """Count every call with its outcome and duration."""

    async def guard(call: Call, proceed: Handler) -> Result:
        started = clock.monotonic()
        outcome = "ok"
        try:
            return await proceed(call)
        except FloorcastError as error:
            outcome = error.code.value
            raise
        except Exception:
            outcome = ErrorCode.SERVER_INTERNAL.value
            raise
        except BaseException:
            # The connection ended first.
            outcome = CANCELLED
            raise
        finally:
            # Clients choose event names: unknown names share one counter to bound memory.
            event = call.event if call.is_connect or call.event in routes else UNKNOWN_EVENT
            counters.count_event(call.namespace, event, outcome, clock.monotonic() - started)

    return guard


def authentication(
    verifier: Verifier, clock: Clock, *, anonymous_allowed: bool, grace_seconds: float
) -> Guard:
    """Set the principal: from the token of a connect, from the joined client of an event."""

    async def guard(call: Call, proceed: Handler) -> Result:
        if call.client is None:
            origin = call.link.request
            payload = call.arguments[0]
            token = find_token(payload, origin.authorization, origin.query_token)
            request = auth_request(call.namespace, call.link, payload)
            call.principal = await verifier.verify_client(token, request)
            if call.principal is None:
                if not anonymous_allowed:
                    raise AccessError(ErrorCode.AUTH_MISSING, "a token is required to connect")
                call.principal = anonymous()
        else:
            call.principal = call.client.principal
        # Also at a connect, whose leeway may be longer: a joined client would be sent away at once.
        if clock.time() >= call.principal.expires_at + grace_seconds:
            raise AccessError(
                ErrorCode.AUTH_EXPIRED, "the token has expired: reconnect with a new token"
            )
        return await proceed(call)

    return guard


def auth_request(namespace: str, link: Connection, auth: object) -> AuthRequest:
    """What the application's authentication may read of a client."""
    origin = link.request
    payload = cast("dict[str, object]", auth) if isinstance(auth, dict) else {}
    return AuthRequest(namespace, origin.ip, origin.headers or {}, payload)


def validation(routes: Routes, connect: AnyRoute) -> Guard:
    """Find the route of a call and validate its payload with the route's model."""

    async def guard(call: Call, proceed: Handler) -> Result:
        route = connect if call.is_connect else routes.get(call.event)
        if route is None:
            raise RequestError(ErrorCode.REQUEST_UNKNOWN_EVENT, "unknown event in this namespace")
        if len(call.arguments) > 1:
            raise RequestError(
                ErrorCode.REQUEST_INVALID, "an event has at most one argument, an object"
            )
        payload = call.arguments[0] if call.arguments else None
        try:
            call.request = route.model.model_validate({} if payload is None else payload)
        except ValidationError as error:
            raise invalid_request(error) from None
        return await proceed(call)

    return guard


def rate_limit(limits: EventLimits) -> Guard:
    """Charge for the topics or messages of an event, which the client's next events pay for.

    The event itself was counted when it was received, before it was parsed.
    """

    async def guard(call: Call, proceed: Handler) -> Result:
        if isinstance(call.request, Publish):
            limits.charge_items(call.connection_id, len(call.request.messages))
        elif isinstance(call.request, WillRequest):
            limits.charge_items(call.connection_id, len(call.request.messages or ()))
        elif isinstance(call.request, Subscribe | Unsubscribe):
            limits.charge_items(call.connection_id, len(call.request.topics))
        return await proceed(call)

    return guard


def application(guard: ApplicationGuard) -> Guard:
    """Run a guard of the application after the built-in ones; it can refuse, but let nobody in.

    At a connect, its `proceed` only says that it has no objection: the client joins after all
    guards have run, so that none can refuse a client that has joined.
    """

    async def checked(call: Call, proceed: Handler) -> Result:
        if call.is_connect:
            await _ask(guard, call)
            return await proceed(call)

        async def handle(each: Call) -> Reply:
            return cast(Reply, await proceed(each))

        reply = await run_foreign(guard(call, handle), "floorcast-guard")
        if not isinstance(reply, dict) or "ok" not in reply:
            raise TypeError(f"the guard {guard!r} must return a reply: await proceed(call)")
        return reply

    return checked


async def _ask(guard: ApplicationGuard, call: Call) -> None:
    allowed = False

    async def allow(_: Call) -> Reply:
        nonlocal allowed
        allowed = True
        return {"ok": True}

    await run_foreign(guard(call, allow), "floorcast-guard")
    if not allowed:
        raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the application does not allow this")
