"""Tests what serves the console; tests/js opens it in a browser."""

import re

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient

from server.app import create_app
from server.settings import load_settings

SECRET = "a secret for tests that is long enough to be one"


async def open_client(
    aiohttp_client: AiohttpClient, *, console: bool = True, token: str | None = None
) -> TestClient:  # type: ignore[type-arg]
    settings = load_settings(flags={"auth.secret": SECRET, "server.console": console})
    return await aiohttp_client(create_app(settings, console_token=token))


async def test_page_runs_only_what_has_the_nonce_of_this_response(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await open_client(aiohttp_client)
    nonces = set()
    for _ in range(2):
        response = await client.get("/")
        policy, page = response.headers["Content-Security-Policy"], await response.text()
        [nonce] = re.findall(r"script-src 'nonce-([^']+)';", policy)
        nonces.add(nonce)
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        needed = re.findall(r"<(?:script|style|link rel=\"stylesheet\")[^>]*>", page)
        assert len(needed) == 2
        assert all(f'nonce="{nonce}"' in each for each in needed)
        assert "CSP_NONCE" not in page
        assert response.headers["Cache-Control"] == "no-store"
    assert len(nonces) == 2


async def test_page_names_only_files_of_this_server(aiohttp_client: AiohttpClient) -> None:
    client = await open_client(aiohttp_client)
    page = await (await client.get("/")).text()
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert "./console/console.js" in files
    for name in files:
        if not name.startswith("data:"):
            assert name.startswith("./")
            assert (await client.get(name[1:])).status == 200
    assert (await client.get("/console/licenses.txt")).status == 200


async def test_files_are_kept_by_the_browser_until_they_change(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await open_client(aiohttp_client)
    first = await client.get("/console/console.css")
    assert first.headers["Cache-Control"] == "no-cache"
    known = {"If-None-Match": first.headers["ETag"]}
    again = await client.get("/console/console.css", headers=known)
    assert (again.status, await again.read()) == (304, b"")
    other = await client.get("/console/console.css", headers={"If-None-Match": '"other"'})
    assert other.status == 200


async def test_token_is_given_to_the_console_at_a_name_of_this_machine_only(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await open_client(aiohttp_client, token="the token")
    given = await client.get("/console/session")
    assert (await given.json())["token"] == "the token"
    assert given.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in given.headers
    refused = await client.get("/console/session", headers={"Host": "rebound.example"})
    assert refused.status == 403
    assert "the token" not in await refused.text()


async def test_console_without_a_token_gives_none(aiohttp_client: AiohttpClient) -> None:
    client = await open_client(aiohttp_client)
    assert (await (await client.get("/console/session")).json())["token"] is None


@pytest.mark.parametrize("path", ["/", "/console/session", "/console/console.js"])
async def test_console_is_off_by_default(aiohttp_client: AiohttpClient, path: str) -> None:
    client = await open_client(aiohttp_client, console=False)
    assert (await client.get(path)).status == 404
