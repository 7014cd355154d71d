"""Guards in front of the handlers: errors, metrics, authentication, validation, rate limit."""

import logging
import secrets
from typing import cast

from pydantic import BaseModel, ValidationError

from client_sdk.contract import ErrorCode
from server.access import AuthRequest, Principal, Verifier, anonymous, find_token
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


class BuiltInGuards:
    """Runs the built-in guards of one namespace, in one coroutine: a coroutine for each would cost
    more than many handlers do.

    Every failure becomes a reply: CONNECT_ERROR for a connect, an error ack for an event. Every
    call is counted with its outcome and duration.
    """

    def __init__(
        self,
        namespace: str,
        routes: Routes,
        connect: AnyRoute,
        *,
        verifier: Verifier,
        limits: EventLimits,
        counters: Counters,
        refusals: RefusalLog,
        clock: Clock,
        anonymous_allowed: bool,
        grace_seconds: float,
    ) -> None:
        self._routes = routes
        self._connect_route = connect
        self._verifier = verifier
        self._limits = limits
        self._refusals = refusals
        self._clock = clock
        self._anonymous_allowed = anonymous_allowed
        self._grace_seconds = grace_seconds
        self._connects = counters.events_of(namespace, "connect")
        # Clients choose event names: unknown ones share one counter, which bounds memory.
        self._unknown_events = counters.events_of(namespace, UNKNOWN_EVENT)
        self._events = {event: counters.events_of(namespace, event) for event in routes}

    async def on_connect(self, call: Call, proceed: Handler) -> Result:
        """Authenticate and validate a connect; raises `ConnectionRefused` for a refused one."""
        started = self._clock.monotonic()
        # Unless it ends otherwise, the connection ends first.
        outcome = CANCELLED
        try:
            principal = await self._authenticate(call)
            self._check_expiry(principal)
            call.principal = principal
            call.request = _validated(self._connect_route, call)
            result = await proceed(call)
            outcome = "ok"
            return result
        except FloorcastError as error:
            outcome, refused = error.code.value, error
        except Exception as failure:
            outcome = ErrorCode.SERVER_INTERNAL.value
            refused = internal_error(call.namespace, call.event, failure)
        finally:
            self._connects.count(outcome, self._clock.monotonic() - started)
        self._refusals.record(refused.code.value, refused.message, call.link.request.ip)
        raise ConnectionRefused(refused.message, refused.body())

    async def on_event(self, call: Call, proceed: Handler) -> Result:
        """Check and validate an event of a joined client."""
        started = self._clock.monotonic()
        outcome = CANCELLED
        try:
            assert call.client is not None
            call.principal = principal = call.client.principal
            self._check_expiry(principal)
            route = self._routes.get(call.event)
            if route is None:
                raise RequestError(
                    ErrorCode.REQUEST_UNKNOWN_EVENT, "unknown event in this namespace"
                )
            call.request = request = _validated(route, call)
            if route.items is not None:
                # The event itself was counted when it was received, before it was parsed. The
                # client's next events pay for what it asks for or brings.
                self._limits.charge_items(call.connection_id, route.items(request))
            result = await proceed(call)
            outcome = "ok"
            return result
        except FloorcastError as error:
            outcome, refused = error.code.value, error
        except Exception as failure:
            outcome = ErrorCode.SERVER_INTERNAL.value
            refused = internal_error(call.namespace, call.event, failure)
        finally:
            counter = self._events.get(call.event, self._unknown_events)
            counter.count(outcome, self._clock.monotonic() - started)
        return {"ok": False, "error": refused.body()}

    async def _authenticate(self, call: Call) -> Principal:
        origin = call.link.request
        payload = call.arguments[0]
        token = find_token(payload, origin.authorization, origin.query_token)
        request = auth_request(call.namespace, call.link, payload)
        principal = await self._verifier.verify_client(token, request)
        if principal is not None:
            return principal
        if not self._anonymous_allowed:
            raise AccessError(ErrorCode.AUTH_MISSING, "a token is required to connect")
        return anonymous()

    def _check_expiry(self, principal: Principal) -> None:
        # Also at a connect, whose leeway may be longer: a joined client would be sent away at once.
        if self._clock.time() >= principal.expires_at + self._grace_seconds:
            raise AccessError(
                ErrorCode.AUTH_EXPIRED, "the token has expired: reconnect with a new token"
            )


def _validated(route: AnyRoute, call: Call) -> BaseModel:
    """The payload of a call as the model of its route."""
    if len(call.arguments) > 1:
        raise RequestError(
            ErrorCode.REQUEST_INVALID, "an event has at most one argument, an object"
        )
    payload = call.arguments[0] if call.arguments else None
    try:
        request: BaseModel = route.validate({} if payload is None else payload)
    except ValidationError as error:
        raise invalid_request(error) from None
    return request


def auth_request(namespace: str, link: Connection, auth: object) -> AuthRequest:
    """What the application's authentication may read of a client."""
    origin = link.request
    payload = cast("dict[str, object]", auth) if isinstance(auth, dict) else {}
    return AuthRequest(namespace, origin.ip, origin.headers or {}, payload)


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
