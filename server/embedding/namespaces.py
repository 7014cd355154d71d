"""The application's own namespaces: typed events, rooms and broadcasts."""

import logging
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from client_sdk.contract import ErrorCode, SubscriptionStatus
from server.access import Principal
from server.core.errors import AccessError
from server.core.log.entries import Position
from server.services import Recovery, Rooms
from server.services.rooms.recovery import MayStay
from server.services.rooms.rooms import check_event
from server.sockets import Call, GuardedNamespace, JoinedClient, NamespaceContext, Reply, Route
from server.sockets.pipeline import AnyRoute, Request
from server.tasks import run_foreign

logger = logging.getLogger(__name__)

Fields = Mapping[str, Any]
# A method of a namespace; what it returns is added to the reply.
Method = Callable[[Any, Call, Request], Coroutine[Any, Any, Fields | None]]

_NAME = re.compile(r"/[A-Za-z0-9_/-]{1,63}")
_MARK = "_floorcast_event"
_MAX_SECONDS = 5.0


def on(event: str, model: type[Request]) -> Callable[[Method[Request]], Method[Request]]:
    """Mark a method of a `Namespace` as the handler of an event; it gets a valid `model`.

    Clients can call only marked methods. Raises `ValueError` for a reserved name.
    """
    check_event(event)

    def mark(method: Method[Request]) -> Method[Request]:
        setattr(method, _MARK, (event, model))
        return method

    return mark


class Namespace:
    """A namespace of the application. Pass it to `create_app`. Example:

    class Desk(Namespace):
        @on("order", PlaceOrder)
        async def place(self, call: Call, request: PlaceOrder) -> Fields:
            await self.broadcast("orders", "order", {"id": request.id}, org=call.caller.org)
            return {"id": request.id}

    A handler refuses by raising a `FloorcastError`. Its calls have passed all built-in guards.
    A room belongs to an org, and reaches its connections on all nodes.
    """

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f'{name!r} is no name of a namespace: name it like "/desk"')
        self.name = name
        self._rooms: Rooms | None = None

    async def on_connect(self, client: JoinedClient) -> None:
        """Override to refuse a new client, by raising, or to let it enter rooms at once.

        A client that resumes its connection is still in its rooms: this is not called for it.
        """

    async def may_stay(self, principal: Principal, room: str) -> bool:
        """Override to check a room again when a client resumes or refreshes its token.

        Anything but True takes the client out of the room, and so does an `AccessError` or no
        answer within 5 s. A client that refreshes its token then gets an `error` event with the
        code `auth.forbidden` and the room in its details.
        """
        return True

    async def enter(self, connection_id: str, room: str) -> None:
        """Let a connection receive the broadcasts of a room of its org; no-op if it does already.

        Raises `LimitError` if it is in too many rooms, `RequestError` if it has ended.
        """
        await self._bound.enter(connection_id, room)

    async def leave(self, connection_id: str, room: str) -> None:
        """Take a connection out of a room; no-op if it is not in it."""
        await self._bound.leave(connection_id, room)

    def rooms_of(self, connection_id: str) -> tuple[str, ...]:
        """The rooms of a connection; none if it has ended."""
        return self._bound.rooms_of(connection_id)

    async def broadcast(
        self, room: str, event: str, body: Fields, *, org: str = "default"
    ) -> Position:
        """Send an event to all connections in a room, on all nodes, in one order.

        Connections that resume get what they missed; one that cannot is disconnected.
        """
        return await self._bound.broadcast(org, room, event, body)

    def send(self, connection_id: str, event: str, body: Fields) -> bool:
        """Send an event to one connection of this node; False if it is not connected now."""
        return self._bound.send_to(connection_id, event, body)

    @property
    def _bound(self) -> Rooms:
        if self._rooms is None:
            raise RuntimeError(f"{self.name} is not part of a server yet: pass it to create_app")
        return self._rooms

    def bind(self, rooms: Rooms) -> None:
        """Make this namespace part of one server; `create_app` calls it."""
        if self._rooms is not None:
            raise ValueError(f"{self.name} is already part of a server: make another one")
        self._rooms = rooms

    def routes(self) -> dict[str, AnyRoute]:
        """The route of each marked method; raises `ValueError` if two have one event."""
        routes: dict[str, AnyRoute] = {}
        for method in self._methods():
            event, model = getattr(method, _MARK)
            if event in routes:
                raise ValueError(f"{self.name} has two handlers of {event!r}")
            routes[event] = Route(model, _handler(method))
        return routes

    def _methods(self) -> Iterator[Callable[[Call, Any], Coroutine[Any, Any, Fields | None]]]:
        for name in dict.fromkeys(name for kind in type(self).__mro__ for name in vars(kind)):
            if hasattr(getattr(type(self), name), _MARK):
                yield getattr(self, name)


def _handler(
    method: Callable[[Call, Any], Coroutine[Any, Any, Fields | None]],
) -> Callable[[Call, Any], Coroutine[Any, Any, Reply]]:
    async def handle(call: Call, request: Any) -> Reply:
        fields = await run_foreign(method(call, request), "floorcast-handler")
        return {**(fields or {}), "ok": True}

    return handle


def stay_check(namespace: Namespace) -> MayStay:
    """The namespace's check whether a principal may stay in a room; only True allows it."""

    async def check(principal: Principal, room: str) -> bool:
        try:
            verdict = await run_foreign(
                namespace.may_stay(principal, room),
                "floorcast-may-stay",
                timeout_seconds=_MAX_SECONDS,
            )
        except AccessError:
            return False
        except TimeoutError:
            logger.warning("may_stay takes too long", extra={"room": room})
            return False
        except Exception:
            logger.exception("may_stay failed", extra={"room": room})
            return False
        return verdict is True

    return check


class ApplicationNamespace(GuardedNamespace):
    """Serves a namespace of the application as the built-in ones are served."""

    def __init__(
        self, namespace: Namespace, context: NamespaceContext, recovery: Recovery, rooms: Rooms
    ) -> None:
        super().__init__(
            namespace.name, context, recovery, namespace.routes(), anonymous_allowed=False
        )
        self._application = namespace
        self._rooms = rooms
        namespace.bind(rooms)

    async def attach_client(
        self, client: JoinedClient, session_id: str | None, *, numbered: bool
    ) -> None:
        org = client.principal.org
        self._rooms.add_connection(client.connection_id, org, client.link, numbered=numbered)
        await run_foreign(self._application.on_connect(client), "floorcast-connect")

    async def end_forbidden(self, client: JoinedClient) -> Reply:
        """Take the client out of the rooms that `may_stay` forbids; it gets an `error` for each."""
        may_stay = stay_check(self._application)
        forbidden: dict[str, Reply] = {}
        for room in self._rooms.rooms_of(client.connection_id):
            if not await may_stay(client.principal, room):
                error = AccessError(
                    ErrorCode.AUTH_FORBIDDEN,
                    f"the application does not allow {room}",
                    details={"room": room},
                )
                forbidden[room] = {"status": SubscriptionStatus.ERROR.value, "error": error.body()}
                await self._rooms.expel(client.connection_id, room, error)
        return {"rooms": forbidden} if forbidden else {}
