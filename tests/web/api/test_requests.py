"""What every request passes: its shape, its token, its limits, and the one shape of errors."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientError, web

from client_sdk.contract import Scope
from server.access import mint
from server.app import SERVER, create_app
from server.core.errors import FloorcastError
from server.ports import Answers
from server.settings import load_settings
from tests.kit.clock import ManualClock
from tests.kit.server.api import OPERATOR, ApiNode, StartApi, StartClient
from tests.kit.server.in_process import SECRET

PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}
PUBLISH = {"messages": [{"topic": "PRICE:BTCUSDT", "data": PRICE}]}
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/", 404),
        ("GET", "/connections/", 404),
        ("GET", "/publish", 405),
        ("PUT", "/publish", 405),
        ("DELETE", "/nodes", 405),
    ],
)
async def test_unknown_path_or_method_has_the_shape_of_errors(
    start_api: StartApi, method: str, path: str, status: int
) -> None:
    api = await start_api()
    assert await api.refusal(method, path, status) == "request.invalid"


async def test_wrong_method_is_answered_with_the_right_ones(start_api: StartApi) -> None:
    api = await start_api()
    async with api.http.delete("/api/v1/publish") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, "request.invalid"),
        (
            {"data": b"{}", "headers": {"Content-Type": "application/json; charset=latin-1"}},
            415,
            "request.invalid",
        ),
        (
            {"data": b"{}", "headers": {**JSON, "Content-Encoding": "gzip"}},
            415,
            "request.invalid",
        ),
        ({"data": b"{", "headers": JSON}, 400, "request.invalid"),
        ({"data": b"[]", "headers": JSON}, 400, "request.invalid"),
        ({"data": b"\xff", "headers": JSON}, 400, "request.invalid"),
        ({"data": b'{"messages":1,"messages":2}', "headers": JSON}, 400, "request.invalid"),
        ({"data": b'{"messages":[NaN]}', "headers": JSON}, 400, "request.invalid"),
        ({"data": b"[" * 1000 + b"]" * 1000, "headers": JSON}, 400, "request.invalid"),
        ({"data": b" " * 200_000, "headers": JSON}, 413, "limit.payload"),
        ({}, 400, "request.invalid"),
        ({"json": {"messages": []}}, 400, "request.invalid"),
        ({"json": {"messages": "x"}}, 400, "request.invalid"),
        ({"json": {**PUBLISH, "more": 1}}, 400, "request.invalid"),
        ({"json": PUBLISH, "params": {"a": "b"}}, 400, "request.invalid"),
        ({"json": PUBLISH, "headers": {"Accept": "text/html"}}, 406, "request.invalid"),
        ({"json": PUBLISH, "headers": {"Idempotency-Key": "a b"}}, 400, "request.invalid"),
        ({"json": PUBLISH, "headers": {"Idempotency-Key": "a" * 101}}, 400, "request.invalid"),
    ],
)
async def test_bad_request_gets_a_clear_error(
    start_api: StartApi, options: dict[str, Any], status: int, code: str
) -> None:
    api = await start_api()
    assert await api.refusal("POST", "/publish", status, **options) == code


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "limit=1.0",
        "limit=0",
        "limit=101",
        "limit=1&limit=2",
        "more=1",
        "limit=",
    ],
)
async def test_bad_query_gets_a_clear_error(start_api: StartApi, query: str) -> None:
    api = await start_api()
    assert await api.refusal("GET", f"/connections?{query}", 400) == "request.invalid"


async def test_body_without_end_is_refused_at_the_limit(start_api: StartApi) -> None:
    api = await start_api()

    async def endless() -> Any:
        while True:
            yield b" " * 10_000

    code = await api.refusal("POST", "/publish", 413, data=endless(), headers=JSON)
    assert code == "limit.payload"


async def test_body_that_does_not_arrive_is_given_up(start_api: StartApi) -> None:
    api = await start_api(limits__head_timeout_seconds=0.05)
    arrives = asyncio.Event()

    async def stalled() -> Any:
        yield b"{"
        await arrives.wait()

    code = await api.refusal("POST", "/publish", 408, data=stalled(), headers=JSON)
    arrives.set()
    assert code == "request.invalid"


async def test_accepted_types_may_name_json_in_any_way(start_api: StartApi) -> None:
    api = await start_api()
    for accept in ("application/json", "application/*;q=0.5", "text/html, */*;q=0.1"):
        await api.call("GET", "/nodes", headers={"Accept": accept})


# --- tokens


async def test_request_without_a_token_says_how_to_send_one(start_api: StartApi) -> None:
    api = await start_api()
    for headers in ({}, {"Authorization": "Basic YTpi"}):
        async with api.http.get("/api/v1/nodes", headers=headers) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert (await response.json())["error"]["code"] == "auth.missing"


async def test_token_in_the_query_is_never_read(start_api: StartApi) -> None:
    api = await start_api(auth__token_in_query=True)
    async with api.http.get(f"/api/v1/nodes?token={api.operator()}") as response:
        assert response.status == 401


async def test_bad_token_is_refused_with_its_code(start_api: StartApi) -> None:
    api = await start_api()
    expiring = api.operator(ttl_seconds=60)
    api.clock.advance(3600)
    forged = api.operator(secret="another secret that is long enough too")
    assert await api.refusal("GET", "/nodes", 401, token=expiring) == "auth.expired"
    assert await api.refusal("GET", "/nodes", 401, token=forged) == "auth.invalid"
    assert await api.refusal("GET", "/nodes", 401, token="") == "auth.invalid"


@pytest.mark.parametrize("path", ["/connections", "/connections/x", "/nodes", "/stats", "/users/a"])
async def test_operating_needs_the_admin_scope(start_api: StartApi, path: str) -> None:
    api = await start_api()
    token = api.token(scopes=[each for each in Scope if each is not Scope.ADMIN])
    assert await api.refusal("GET", path, 403, token=token) == "auth.forbidden"


# --- limits


async def test_user_who_asks_too_often_is_asked_to_wait(start_api: StartApi) -> None:
    api = await start_api(limits__requests_per_second=1)
    for _ in range(2):
        await api.call("GET", "/nodes")
    headers = {"Authorization": f"Bearer {api.operator()}"}
    async with api.http.get("/api/v1/nodes", headers=headers) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "1"
        assert (await response.json())["error"]["retry_after_ms"] == 1000
    await api.call("GET", "/nodes", token=api.operator("other"))
    api.clock.advance(1)
    await api.call("GET", "/nodes")


async def test_address_that_asks_too_often_is_refused_before_its_token_is_read(
    start_api: StartApi,
) -> None:
    api = await start_api(limits__requests_per_second_per_ip=1)
    for _ in range(2):
        await api.refusal("GET", "/nodes", 401, token="forged")
    assert await api.refusal("GET", "/nodes", 429, token="forged") == "limit.rate"
    assert await api.refusal("GET", "/nope", 429) == "limit.rate"


async def test_address_behind_a_trusted_proxy_has_its_own_limit(
    start_api: StartApi,
) -> None:
    api = await start_api(
        limits__requests_per_second_per_ip=1,
        server__trusted_proxies=("127.0.0.0/8",),
    )
    for address in ("203.0.113.1", "203.0.113.2"):
        for _ in range(2):
            await api.call("GET", "/nodes", headers={"X-Forwarded-For": address})
        await api.refusal("GET", "/nodes", 429, headers={"X-Forwarded-For": address})


async def test_address_has_a_bounded_number_of_requests_at_once(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.web.api.limits._MAX_AT_ONCE_PER_IP", 2)
    api = await start_api()
    asked, answered = asyncio.Semaphore(0), asyncio.Event()
    ask = api.server.backend.cluster.ask

    async def wait_and_ask(question: bytes) -> Answers:
        asked.release()
        await answered.wait()
        return await ask(question)

    monkeypatch.setattr(api.server.backend.cluster, "ask", wait_and_ask)
    waiting = [asyncio.create_task(api.call("GET", "/nodes")) for _ in range(2)]
    for _ in waiting:
        await asked.acquire()
    assert await api.refusal("GET", "/nodes", 429) == "limit.rate"
    answered.set()
    await asyncio.gather(*waiting)
    await api.call("GET", "/nodes")


async def test_client_that_does_not_read_its_answer_is_cut_off(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await start_api(limits__head_timeout_seconds=0.05)

    async def never_sent(_: web.Response, data: bytes = b"") -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(web.Response, "write_eof", never_sent)
        with pytest.raises(ClientError):
            await api.call("GET", "/nodes")
    await api.call("GET", "/nodes")


# --- ids, failures and other applications


async def test_request_id_is_the_clients_or_a_new_one(start_api: StartApi) -> None:
    api = await start_api()
    for sent, expected in (("abc-1", "abc-1"), ("no spaces", None), ("x" * 65, None)):
        async with api.http.get("/api/v1/nope", headers={"X-Request-Id": sent}) as response:
            answered = response.headers["X-Request-Id"]
        assert answered == expected if expected else answered != sent
        assert answered


async def test_failing_handler_shows_only_an_incident_and_logs_the_rest(
    start_api: StartApi,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = await start_api()

    async def fail(_: bytes) -> bytes:
        raise RuntimeError("the secret of the database")

    monkeypatch.setattr(api.server.backend.cluster, "ask", fail)
    headers = {"X-Request-Id": "req-7"}
    answer = await api.call("GET", "/nodes", status=500, headers=headers)
    assert answer["error"]["code"] == "server.internal"
    assert "secret" not in json.dumps(answer)
    [record] = [each for each in caplog.records if each.exc_info]
    assert record.__dict__["incident"] == answer["error"]["details"]["incident"]
    assert record.__dict__["request"] == "req-7"


async def test_unavailable_broker_is_a_503_with_retry_after(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await start_api()

    async def fail(*_: object, **__: object) -> None:
        from client_sdk.contract import ErrorCode

        raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker is unavailable")

    monkeypatch.setattr(api.server.backend.broker, "publish", fail)
    headers = {"Authorization": f"Bearer {api.operator()}"}
    async with api.http.post("/api/v1/publish", json=PUBLISH, headers=headers) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1


async def test_requests_are_counted_by_endpoint_and_outcome(start_api: StartApi) -> None:
    api = await start_api()
    await api.call("GET", "/users/ann")
    await api.refusal("GET", "/users/ann", 401, token="x")
    await api.refusal("GET", "/users/" + "x" * 200, 400)
    counted = {
        key[1:]: count for key, count in api.server.counters.events().items() if key[0] == "http"
    }
    assert counted == {
        ("GET /users/{user}", "ok"): 1,
        ("GET /users/{user}", "auth.invalid"): 1,
        ("GET /users/{user}", "request.invalid"): 1,
    }


async def test_api_works_inside_another_application(aiohttp_client: StartClient) -> None:
    clock = ManualClock()
    realtime = create_app(load_settings(flags={"auth.secret": SECRET}), clock=clock)
    app = web.Application()
    app.add_subapp("/realtime", realtime)
    client = await aiohttp_client(app)
    token = mint(SECRET, subject="ops", scopes=OPERATOR, clock=clock, ttl_seconds=60)
    headers = {"Authorization": f"Bearer {token}"}
    async with client.post("/realtime/api/v1/publish", json=PUBLISH, headers=headers) as response:
        assert response.status == 200
    async with client.get("/realtime/api/v1/nope") as response:
        assert (await response.json())["error"]["code"] == "request.invalid"
    async with client.get("/realtime/api/v1/openapi.json") as response:
        assert (await response.json())["servers"] == [{"url": "/realtime/api/v1"}]
    assert realtime[SERVER].publisher is not None


async def test_head_is_answered_like_get_without_a_body(start_api: StartApi) -> None:
    api: ApiNode = await start_api()
    headers = {"Authorization": f"Bearer {api.operator()}"}
    async with api.http.head("/api/v1/nodes", headers=headers) as response:
        assert response.status == 200
        assert await response.read() == b""
