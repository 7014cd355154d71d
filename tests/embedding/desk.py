"""A namespace of an application, for tests."""

from typing import Any

from pydantic import Field

from floorcast.server import (
    AccessError,
    Call,
    ErrorCode,
    JoinedClient,
    Namespace,
    Principal,
    Request,
    on,
)


class Watch(Request):
    """Enter or leave a room."""

    room: str


class Order(Request):
    """An order for everybody who watches its room."""

    room: str
    quantity: int = Field(gt=0)


class Desk(Namespace):
    """Rooms of traders; orders are broadcast to them."""

    def __init__(self, name: str = "/desk") -> None:
        super().__init__(name)
        self.closed_rooms: set[str] = set()

    async def on_connect(self, client: JoinedClient) -> None:
        if client.principal.user_id == "mallory":
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "not at this desk")
        await self.enter(client.connection_id, "everybody")

    async def may_stay(self, principal: Principal, room: str) -> bool:
        return room not in self.closed_rooms

    @on("watch", Watch)
    async def watch(self, call: Call, request: Watch) -> None:
        await self.enter(call.connection_id, request.room)

    @on("unwatch", Watch)
    async def unwatch(self, call: Call, request: Watch) -> None:
        await self.leave(call.connection_id, request.room)

    @on("order", Order)
    async def place(self, call: Call, request: Order) -> dict[str, Any]:
        body = {"user": call.caller.user_id, "quantity": request.quantity}
        position = await self.broadcast(request.room, "order", body, org=call.caller.org)
        self.send(call.connection_id, "placed", {"quantity": request.quantity})
        return {"seq": position.seq}

    async def not_an_event(self, call: Call, request: Watch) -> None:
        """Clients cannot call this."""
        raise AssertionError(call.event)
