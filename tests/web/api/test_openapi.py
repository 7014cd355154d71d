"""The description of the API: committed, current, and its page.

Run this module to write the committed one: `python -m tests.web.api.test_openapi`.
"""

import json
import re
from pathlib import Path
from typing import Any

from client_sdk import __version__
from client_sdk.contract.formats import asyncapi
from server.app import SERVER, create_app
from server.settings import load_settings
from server.web.api.openapi import describe_api
from tests.kit.server.api import StartApi
from tests.kit.server.in_process import SECRET

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"


def described() -> dict[str, Any]:
    """The description of a server with default settings."""
    app = create_app(load_settings(flags={"auth.secret": SECRET}))
    return describe_api(app[SERVER].api.endpoints, "/api/v1")


async def test_committed_description_is_current() -> None:
    assert json.loads(COMMITTED.read_text()) == described(), "run this module to write it anew"


async def test_description_is_served_without_a_token(start_api: StartApi) -> None:
    api = await start_api()
    async with api.http.get("/api/v1/openapi.json") as response:
        assert response.status == 200
        assert await response.json() == described()


async def test_events_of_the_sockets_are_described_too(start_api: StartApi) -> None:
    api = await start_api()
    async with api.http.get("/api/v1/asyncapi.json") as response:
        assert response.status == 200
        assert await response.json() == json.loads(json.dumps(asyncapi(__version__)))


async def test_every_reference_has_its_schema() -> None:
    document = described()
    names = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert set(names) <= document["components"]["schemas"].keys()
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    ids = [each["operationId"] for each in operations]
    assert len(set(ids)) == len(ids)


async def test_documentation_page_loads_nothing_and_runs_nothing(
    start_api: StartApi,
) -> None:
    api = await start_api()
    async with api.http.get("/api/v1/docs") as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        policy = response.headers["Content-Security-Policy"]
        page = await response.text()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)
    for path in described()["paths"]:
        assert path in page


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(described(), indent=1, ensure_ascii=False) + "\n")
