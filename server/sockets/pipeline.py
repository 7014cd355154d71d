"""Runs every connect and event through a list of guards around a handler."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel

from server.access import Principal
from server.sockets.clients import JoinedClient
from server.transport import Accepted, Connection, OrderKeys

Reply = dict[str, Any]
# An accepted connect, or the reply to an event.
Result = Accepted | Reply
Request = TypeVar("Request", bound=BaseModel)


@dataclass(slots=True)
class Call:
    """A connect or event in the pipeline; guards set `principal` and `request`."""

    namespace: str
    event: str
    connection_id: str
    link: Connection
    arguments: tuple[object, ...]
    client: JoinedClient | None = None
    principal: Principal | None = None
    request: BaseModel | None = None

    @property
    def is_connect(self) -> bool:
        """True for a CONNECT, False for an event of a joined client."""
        return self.client is None

    @property
    def caller(self) -> Principal:
        """The authenticated principal; only after the authentication guard."""
        assert self.principal is not None
        return self.principal


Handler = Callable[[Call], Awaitable[Result]]
Guard = Callable[[Call, Handler], Awaitable[Result]]
# The application's guards see no more of a connect than a reply.
Proceed = Callable[[Call], Awaitable[Reply]]
ApplicationGuard = Callable[[Call, Proceed], Coroutine[Any, Any, Reply]]


@dataclass(frozen=True, slots=True)
class Route(Generic[Request]):
    """A client event: the model of its payload, and its handler, which gets the valid payload."""

    model: type[Request]
    handle: Callable[[Call, Request], Awaitable[Result]]
    # How many topics or messages a request asks for or brings, which its sender pays for; None if
    # it is one request like any other.
    items: Callable[[Request], int] | None = None
    # Whether its sender also receives it: the ack and the event then share one write.
    echoed: bool = False
    # The topics or sessions with whose earlier events it keeps its order; None: with all. Events
    # of one connection without a common key do not wait for each other's broker.
    ordered_by: Callable[[Request], OrderKeys] | None = None

    def validate(self, payload: object) -> Request:
        """The payload as the model; raises pydantic's `ValidationError`."""
        # What `model_validate` calls, without its options: a tenth of what a small event costs.
        return cast(Request, self.model.__pydantic_validator__.validate_python(payload))


# Each handler gets only what its own model has validated.
AnyRoute = Route[Any]
Routes = Mapping[str, AnyRoute]


def assemble(guards: Sequence[Guard], handler: Handler) -> Handler:
    """Wrap the handler; the first guard of the list is the outermost."""
    for guard in reversed(guards):
        handler = _wrap(guard, handler)
    return handler


def _wrap(guard: Guard, inner: Handler) -> Handler:
    def call(call: Call) -> Awaitable[Result]:
        return guard(call, inner)

    return call
