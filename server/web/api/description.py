"""Serves the description of the API, for programs and for people, without a token."""

from collections.abc import Iterable
from functools import lru_cache

import orjson
from aiohttp import web

from client_sdk import __version__
from client_sdk.contract.formats import asyncapi
from server.web.api.docs_page import DOCS_POLICY, render_docs
from server.web.api.endpoints import AnyEndpoint
from server.web.api.openapi import describe_api


def add_description(api: web.Application, endpoints: Iterable[AnyEndpoint]) -> None:
    """Serve `openapi.json`, `asyncapi.json` (the events of the sockets) and `docs`."""

    @lru_cache(maxsize=1)
    def describe(prefix: str) -> tuple[bytes, str]:
        document = describe_api(endpoints, prefix)
        return orjson.dumps(document), render_docs(document)

    @lru_cache(maxsize=1)
    def describe_events() -> bytes:
        return orjson.dumps(asyncapi(__version__))

    async def events(request: web.Request) -> web.Response:
        return web.Response(body=describe_events(), content_type="application/json")

    async def openapi(request: web.Request) -> web.Response:
        body, _ = describe(_prefix(request))
        return web.Response(body=body, content_type="application/json")

    async def docs(request: web.Request) -> web.Response:
        _, page = describe(_prefix(request))
        return web.Response(
            text=page,
            content_type="text/html",
            headers={"Content-Security-Policy": DOCS_POLICY},
        )

    api.router.add_get("/openapi.json", openapi)
    api.router.add_get("/asyncapi.json", events)
    api.router.add_get("/docs", docs)


def _prefix(request: web.Request) -> str:
    """The path of the API, which may be part of another application."""
    return request.path.rpartition("/")[0]
