"""Pages of allowed origins call the API from a browser, others cannot."""

import pytest

from tests.kit.server.api import ApiNode, StartApi

DESK, OTHER = "https://desk.example", "https://evil.example"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


async def start(start_api: StartApi) -> ApiNode:
    return await start_api(server__origins=(DESK,))


@pytest.mark.parametrize("path", ["/publish", "/users/ann", "/nodes", "/nowhere"])
async def test_preflight_of_an_allowed_origin_is_answered(start_api: StartApi, path: str) -> None:
    api = await start(start_api)
    headers = {"Origin": DESK, **PREFLIGHT}
    async with api.http.options(f"/api/v1{path}", headers=headers) as response:
        assert (response.status, await response.read()) == (204, b"")
        assert response.headers["Access-Control-Allow-Origin"] == DESK
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", [OTHER, "null", "http://desk.example", "https://a.desk.example"])
async def test_preflight_of_another_origin_is_refused(start_api: StartApi, origin: str) -> None:
    api = await start(start_api)
    headers = {"Origin": origin, **PREFLIGHT}
    code = await api.refusal("OPTIONS", "/publish", 403, headers=headers)
    assert code == "auth.forbidden"
    async with api.http.options("/api/v1/publish", headers=headers) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_page_reads_answers_and_errors_with_their_request_id(start_api: StartApi) -> None:
    api = await start(start_api)
    for token, status in ((api.operator(), 200), ("rubbish", 401)):
        headers = {"Origin": DESK, "Authorization": f"Bearer {token}"}
        async with api.http.get("/api/v1/nodes", headers=headers) as response:
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == DESK
            assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]


async def test_page_of_another_origin_reads_nothing(start_api: StartApi) -> None:
    api = await start(start_api)
    for headers in ({"Origin": OTHER}, {}):
        authorization = {"Authorization": f"Bearer {api.operator()}"}
        async with api.http.get("/api/v1/nodes", headers={**authorization, **headers}) as response:
            assert response.status == 200
            assert "Access-Control-Allow-Origin" not in response.headers
            assert response.headers["Vary"] == "Origin"


async def test_options_that_is_no_preflight_is_a_wrong_method(start_api: StartApi) -> None:
    api = await start(start_api)
    assert (
        await api.refusal("OPTIONS", "/nodes", 405, headers={"Origin": DESK}) == "request.invalid"
    )
