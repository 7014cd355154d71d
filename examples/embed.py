"""Floorcast inside an application of one's own, with a namespace for trading desks.

Run: python examples/embed.py [PORT]

It prints a token of a trader, and serves pages at / and the realtime server at /realtime.
docs/embedding.md explains it step by step.
"""

import logging
import secrets
import sys
import time
from typing import Any

import jwt
from aiohttp import web
from pydantic import Field

from floorcast.server import (
    AccessError,
    Call,
    ClientEvent,
    ErrorCode,
    Handlers,
    JoinedClient,
    LimitError,
    MemberEvent,
    Namespace,
    Principal,
    Proceed,
    Reply,
    Request,
    Settings,
    UserEvent,
    authorize,
    create_app,
    host,
    on,
)

logger = logging.getLogger("desk")

MAX_ORDER = 1_000


class PlaceOrder(Request):
    """An order at the trader's desk."""

    symbol: str = Field(pattern=r"^[A-Z]{1,12}$")
    quantity: int = Field(gt=0)


class Desk(Namespace):
    """`/desk`: the traders of one desk see each other's orders."""

    async def on_connect(self, client: JoinedClient) -> None:
        """Let a trader hear its desk, at once."""
        await self.enter(client.connection_id, desk_of(client.principal))

    async def may_stay(self, principal: Principal, room: str) -> bool:
        """Check that a new token is still of this desk."""
        return room == desk_of(principal)

    @on("order", PlaceOrder)
    async def place(self, call: Call, request: PlaceOrder) -> dict[str, Any]:
        """Tell the desk about an order; the reply has its number."""
        trader = call.caller
        order = {"trader": trader.user_id, **request.model_dump()}
        position = await self.broadcast(desk_of(trader), "order", order, org=trader.org)
        return {"number": position.seq}


def desk_of(principal: Principal) -> str:
    """The desk that the token names."""
    desk = principal.claims.get("desk")
    if not isinstance(desk, str):
        raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the token names no desk")
    return desk


def may_subscribe(principal: Principal, topic: str) -> bool:
    """Order books are for desks."""
    return not topic.startswith("ORDERBOOK:") or "desk" in principal.claims


async def limit_orders(call: Call, proceed: Proceed) -> Reply:
    """Refuse large orders; a guard sees the calls of all namespaces."""
    if isinstance(call.request, PlaceOrder) and call.request.quantity > MAX_ORDER:
        raise LimitError(ErrorCode.LIMIT_PAYLOAD, f"an order has at most {MAX_ORDER} pieces")
    return await proceed(call)


def on_connected(event: ClientEvent) -> None:
    logger.info("%s connected to %s", event.principal.user_id, event.namespace)


def on_online(event: UserEvent) -> None:
    logger.info("%s is online", event.user_id)


def on_joined(event: MemberEvent) -> None:
    logger.info("%s joined %s", event.user_id, event.session_id)


async def index(request: web.Request) -> web.Response:
    return web.Response(text="the application's own page\n")


def build(secret: str, port: int) -> tuple[web.Application, dict[str, Any]]:
    """The application, and the arguments to run it with."""
    settings = Settings.model_validate(
        {
            "auth": {"secret": secret},
            "feed": {"name": "simulated"},
            "server": {"port": port, "drain_seconds": 5},
        }
    )
    realtime = create_app(
        settings,
        namespaces=[Desk("/desk")],
        authorize=authorize(may_subscribe=may_subscribe),
        guards=[limit_orders],
        handlers=Handlers(connected=on_connected, user_online=on_online, joined=on_joined),
    )
    app = web.Application()
    app.router.add_get("/", index)
    app.add_subapp("/realtime", realtime)
    return app, host(app, realtime)


def token(secret: str, user: str, **claims: object) -> str:
    """A token as the application's login would make it."""
    now = int(time.time())
    return jwt.encode(
        {
            "sub": user,
            "aud": "floorcast",
            "iat": now,
            "exp": now + 3600,
            "scope": "market:read session:join",
            **claims,
        },
        secret,
        algorithm="HS256",
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    secret = secrets.token_urlsafe(48)
    for user in ("ann", "bob"):
        print(f"token of {user}: {token(secret, user, desk='fx')}")
    print(f"token of eve: {token(secret, 'eve')}", flush=True)
    app, options = build(secret, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    web.run_app(app, **options, print=lambda text: print(text, flush=True))
