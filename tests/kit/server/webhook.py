"""A webhook: a real HTTP server that receives events and answers questions."""

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.kit.network.ports import free_ports

SECRET = "a secret for webhooks"


@dataclass(slots=True)
class Webhook:
    """What it received, and how it answers; `stop` and `start` take it down and up."""

    port: int
    # Of all requests, in order, repeated ones included.
    bodies: list[dict[str, Any]] = field(default_factory=list)
    # Of the requests that it accepted.
    events: list[dict[str, Any]] = field(default_factory=list)
    # Of its own path: what a redirect leads to accepts all.
    status: int = 200
    answer: object = field(default_factory=lambda: {"allow": True})
    # For questions about these topics.
    answers: dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    # Set to let requests go on.
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    open_requests: int = 0
    _runner: web.AppRunner | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def types(self) -> list[str]:
        """The types of the accepted events, each event once."""
        return [each["type"] for each in self.distinct]

    @property
    def distinct(self) -> list[dict[str, Any]]:
        """The accepted events, each once, where it came first."""
        return list({each["id"]: each for each in reversed(self.events)}.values())[::-1]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert is_signed(body, request.headers["Floorcast-Signature"])
        content = json.loads(body)
        self.bodies.append(content)
        self.open_requests += 1
        try:
            await self.gate.wait()
        finally:
            self.open_requests -= 1
        status = self.status if request.path == "/hook" else 200
        if 200 <= status < 300:
            self.events += content.get("events", [])
        answer = self.answers.get(content.get("topic", ""), self.answer)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(text=text, status=status, headers=self.headers)


def is_signed(body: bytes, header: str) -> bool:
    """Whether the header has the signature of this body."""
    fields = dict(part.split("=", 1) for part in header.split(","))
    signed = fields["t"].encode() + b"." + body
    return hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest() == fields["v1"]


@contextlib.asynccontextmanager
async def webhook() -> AsyncIterator[Webhook]:
    """Run a webhook on a free port."""
    [port] = free_ports(1)
    hook = Webhook(port)
    await hook.start()
    try:
        yield hook
    finally:
        hook.gate.set()
        await hook.stop()
