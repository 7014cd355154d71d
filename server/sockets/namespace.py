"""A namespace of python-socketio whose every event goes through the pipeline."""

from typing import Any, cast

import socketio

from client_sdk.contract import ConnectAuth, RefreshToken
from server.access import Principal
from server.sockets import guards
from server.sockets.floor import Floor
from server.sockets.peers import Peer
from server.sockets.pipeline import Call, Handler, Reply, Route, assemble
from server.transport import Accepted, Connection


class FloorNamespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """Routes events by an explicit table; a method's name never makes it callable."""

    # What a client that closes its namespace, or is sent away, leaves for; anything else is a cut.
    _LEFT_BY_ITSELF = socketio.AsyncServer.reason.CLIENT_DISCONNECT

    def __init__(
        self, namespace: str, floor: Floor, routes: dict[str, Route], *, anonymous_allowed: bool
    ) -> None:
        super().__init__(namespace)
        self._floor = floor
        self._routes = {
            "refresh_token": Route(RefreshToken, self._refresh_token),
            **routes,
        }
        clock = floor.clock
        self._call: Handler = assemble(
            [
                guards.errors(),
                guards.metrics(floor.counters, clock, self._routes),
                guards.authentication(
                    floor.verifier,
                    clock,
                    anonymous_allowed=anonymous_allowed,
                    grace_seconds=floor.config.expiry_grace_seconds,
                ),
                guards.rate_limit(floor.event_limits, clock),
                guards.validation(self._routes, Route(ConnectAuth, self._connect)),
            ],
            self._handle,
        )

    async def trigger_event(self, event: str, *args: Any) -> Any:
        """Where the server hands over connects, events and disconnects.

        Clients cannot send events that are called "connect" or "disconnect": the decoder of
        packets refuses reserved names.
        """
        connection_id = args[0]
        if event == "disconnect":
            deliberate = args[1] == self._LEFT_BY_ITSELF
            await self.left(connection_id, deliberate=deliberate)
            self._floor.leave(connection_id)
            return None
        if event == "connect":
            link = cast(Connection, args[1])
            reply = await self._call(Call(self.namespace, event, connection_id, link, (args[2],)))
            return Accepted(reply["first_frames"])
        peer = self._floor.peer(connection_id)
        return await self._call(
            Call(self.namespace, event, connection_id, peer.link, args[1:], peer)
        )

    async def joined(self, peer: Peer, session_id: str | None) -> bytes:
        """A client has joined; the frames to send it after the welcome. For subclasses."""
        return b""

    async def left(self, connection_id: str, *, deliberate: bool) -> None:
        """A client has left, because it wanted to or was cut off; for subclasses."""

    def acknowledged(self, connection_id: str, identifier: int) -> bool:
        """A client acknowledges an event; False where it was not asked to. For subclasses."""
        return False

    def admit(self, principal: Principal, auth: ConnectAuth) -> str | None:
        """Judge what a client wants at connect; the session that it is to be in, if any."""
        return None

    async def _handle(self, call: Call) -> Reply:
        if call.connecting:
            return await self._connect(call)
        return await self._routes[call.event].handle(call)

    async def _connect(self, call: Call) -> Reply:
        principal, auth = call.known, call.request
        assert isinstance(auth, ConnectAuth)
        session_id = self.admit(principal, auth)
        peer = self._floor.join(call, principal, session_id)
        try:
            more = await self.joined(peer, session_id)
        except BaseException:
            # It was not let in after all: nothing of it may stay.
            await self.left(peer.connection_id, deliberate=True)
            self._floor.leave(peer.connection_id)
            raise
        return {"first_frames": self._floor.welcome(peer, session_id) + more}

    async def _refresh_token(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, RefreshToken)
        assert call.peer is not None
        principal = await self._floor.refresh(call.peer, request.token)
        return {"ok": True, "expires_at": int(principal.expires_at * 1000)}
