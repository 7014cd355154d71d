"""The one way of every connect and event: a list of guards around a handler."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from server.access import Principal
from server.sockets.clients import JoinedClient
from server.transport import Connection

Reply = dict[str, Any]


@dataclass(slots=True)
class Call:
    """One connect or event on its way to its handler; the guards fill in what they find."""

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
        """Whether this is the client's wish to come in."""
        return self.client is None

    @property
    def caller(self) -> Principal:
        """Who calls, once the guards have let the call through."""
        assert self.principal is not None
        return self.principal


Handler = Callable[[Call], Awaitable[Reply]]
Guard = Callable[[Call, Handler], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """An event that clients may send: the shape of its payload, and who deals with it."""

    model: type[BaseModel]
    handle: Handler


def assemble(guards: Sequence[Guard], handler: Handler) -> Handler:
    """Wrap the handler; the first guard of the list is the outermost."""
    for guard in reversed(guards):
        handler = _wrap(guard, handler)
    return handler


def _wrap(guard: Guard, inner: Handler) -> Handler:
    def call(call: Call) -> Awaitable[Reply]:
        return guard(call, inner)

    return call
