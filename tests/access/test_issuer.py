"""Tests key fetching from a real HTTP issuer."""

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from server.access import AccessConfig, build_verifier
from server.access.keys import fetch_document
from server.core.errors import AccessError
from tests.access.forge import jwk, jwks, key_for, token
from tests.kit.clients.wire import RawClient
from tests.kit.clock import ManualClock
from tests.kit.server.in_process import running

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve_document(handler: Serve) -> TestServer:
    """Serve one document over HTTP."""
    app = web.Application()
    app.router.add_get("/keys", handler)
    server = TestServer(app)
    await server.start_server()
    return server


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_verifier_uses_the_keys_of_a_real_issuer(algorithm: str) -> None:
    async def keys(request: web.Request) -> web.Response:
        published = jwks(jwk(key_for(algorithm, 1), "old"), jwk(key_for(algorithm), "now"))
        return web.Response(body=published, content_type="application/jwk-set+json")

    async with await serve_document(keys) as server:
        config = AccessConfig(algorithm=algorithm, jwks_url=str(server.make_url("/keys")))
        verifier = build_verifier(config, ManualClock())
        right = token(key=key_for(algorithm), algorithm=algorithm, header={"kid": "now"})
        assert (await verifier.verify(right)).user_id == "ann"
        wrong = token(key=key_for(algorithm), algorithm=algorithm, header={"kid": "old"})
        with pytest.raises(AccessError, match="signature"):
            await verifier.verify(wrong)


@pytest.mark.behaviour("E1")
async def test_client_joins_with_a_token_of_a_real_issuer() -> None:
    async def keys(request: web.Request) -> web.Response:
        return web.Response(body=jwks(jwk(key_for("EdDSA"), "a")))

    text = token(
        key=key_for("EdDSA"), algorithm="EdDSA", header={"kid": "a"}, scope="session:join", org="x"
    )
    async with (
        await serve_document(keys) as server,
        running(
            {"auth.algorithm": "EdDSA", "auth.jwks_url": str(server.make_url("/keys"))}
        ) as node,
    ):
        client = await RawClient.open(node.port)
        await client.text()
        welcome = await client.join(text, namespace="/session", session_id="job:42")
        assert (welcome["user_id"], welcome["org"]) == ("ann", "x")
        assert welcome["session_id"] == "job:42"
        await client.close()
        await node.until_empty()


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_fetch_accepts_only_status_200(status: int) -> None:
    async def keys(request: web.Request) -> web.Response:
        redirected = bool(request.query)
        return web.Response(status=200 if redirected else status, headers={"Location": "/keys?2"})

    async with await serve_document(keys) as server:
        with pytest.raises(ValueError, match="failed with status"):
            await fetch_document(str(server.make_url("/keys")))


@pytest.mark.parametrize(("size", "fits"), [(256 * 1024, True), (256 * 1024 + 1, False)])
async def test_fetch_limits_the_size(size: int, fits: bool) -> None:
    async def keys(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * size)

    async with await serve_document(keys) as server:
        url = str(server.make_url("/keys"))
        if fits:
            assert len(await fetch_document(url)) == size
        else:
            with pytest.raises(ValueError, match="too large"):
                await fetch_document(url)


async def test_fetch_does_not_decompress() -> None:
    async def keys(request: web.Request) -> web.Response:
        response = web.Response(body=b"x" * 10_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with await serve_document(keys) as server:
        assert len(await fetch_document(str(server.make_url("/keys")))) < 256 * 1024
