"""Revoking tokens by HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from client_sdk import Client, TokenRevoked
from server.sockets import NamespaceContext
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.api import ApiNode, StartApi, StartClient, open_api


async def connect_error(api: ApiNode, token: str, namespace: str = "/session") -> str:
    """The code with which a connect is refused; empty if it is accepted."""
    client = await RawClient.open(api.port)
    await client.text()
    client.send(f"40{namespace},{json.dumps({'token': token, 'recovery': False})}")
    answer = await client.text()
    client.cut()
    if answer.startswith(f"40{namespace},"):
        return ""
    return str(json.loads(answer[answer.index("{") :])["data"]["code"])


async def revoke(api: ApiNode, **body: Any) -> Any:
    return await api.call("POST", "/tokens/revoke", json=body)


async def until_ended(client: SessionClient) -> None:
    """Read the goodbye of a revoked client, which must stay away."""
    goodbye = await client.next("goodbye")
    assert (goodbye["code"], goodbye["reconnect"]) == ("auth.revoked", False)
    # A stock client stays away after a DISCONNECT packet.
    assert await client.client.text() == "41/session,"
    await client.client.until_closed()


async def test_revoked_user_is_disconnected_and_refused(start_api: StartApi) -> None:
    api = await start_api()
    token = api.operator("ann")
    client = await api.join_session("ann")
    other = await api.join_session("bob")
    api.clock.advance(1)
    answer = await revoke(api, user="ann")
    assert answer["closed"] == 1
    assert answer["incomplete"] == []
    await until_ended(client)
    assert await connect_error(api, token) == "auth.revoked"
    assert await connect_error(api, token, "/market") == "auth.revoked"
    assert await api.refusal("GET", "/nodes", 401, token=token) == "auth.revoked"
    assert await other.pending_events() == []


async def test_token_issued_after_the_revocation_is_accepted(start_api: StartApi) -> None:
    api = await start_api()
    await revoke(api, user="ann")
    api.clock.advance(1)
    assert await connect_error(api, api.token("ann")) == ""


async def test_revoked_token_id_ends_that_token_alone(start_api: StartApi) -> None:
    api = await start_api()
    stolen = await api.join_session("ann", token_id="stolen")
    other = await api.join_session("ann", token_id="other")
    assert (await revoke(api, jti="stolen"))["closed"] == 1
    await until_ended(stolen)
    assert await other.pending_events() == []
    assert await connect_error(api, api.token("ann", token_id="stolen")) == "auth.revoked"
    assert await connect_error(api, api.token("ann", token_id="other")) == ""


async def test_revocation_before_a_time_spares_newer_tokens(start_api: StartApi) -> None:
    api = await start_api()
    old = await api.join_session("ann")
    api.clock.advance(100)
    new = await api.join_session("ann")
    answer = await revoke(api, user="ann", before=api.clock.time() - 50)
    assert answer["closed"] == 1
    await until_ended(old)
    assert await new.pending_events() == []


async def test_revocation_is_forgotten_after_its_time(start_api: StartApi) -> None:
    api = await start_api()
    token = api.token("ann", ttl_seconds=1000)
    api.clock.advance(1)
    await revoke(api, user="ann", seconds=100)
    assert await connect_error(api, token) == "auth.revoked"
    api.pass_time(101)
    assert (await api.call("GET", "/tokens/revoked"))["revocations"] == []
    assert await connect_error(api, token) == ""


async def test_lost_connection_is_not_recovered_by_a_revoked_token(start_api: StartApi) -> None:
    api = await start_api()
    token = api.token("ann")
    client = await RawClient.open(api.port)
    await client.text()
    client.send(f"40/session,{json.dumps({'token': token})}")
    accepted = json.loads((await client.text()).partition(",")[2])
    _, _ = await client.event()
    client.cut()
    await until(lambda: not api.residue()["sockets"])
    api.clock.advance(1)
    await revoke(api, user="ann")
    again = await RawClient.open(api.port)
    await again.text()
    auth = {"token": token, "pid": accepted["pid"], "offset": client.offset}
    again.send(f"40/session,{json.dumps(auth)}")
    answer = await again.text()
    assert answer.startswith("44/session,")
    assert json.loads(answer[answer.index("{") :])["data"]["code"] == "auth.revoked"
    again.cut()
    api.pass_time(200)
    await api.server.recovery.sweep()


async def test_token_revoked_while_its_client_connects_is_refused(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await start_api()
    reserve = NamespaceContext.reserve

    async def revoke_then_reserve(self: NamespaceContext, *arguments: Any) -> None:
        api.clock.advance(1)
        # A handler of a socket runs outside of tasks at first.
        await asyncio.create_task(revoke(api, user="ann"))
        await reserve(self, *arguments)

    monkeypatch.setattr(NamespaceContext, "reserve", revoke_then_reserve)
    assert await connect_error(api, api.token("ann")) == "auth.revoked"


async def test_token_cannot_be_refreshed_by_a_revoked_one(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann", token_id="first")
    await revoke(api, jti="second")
    reply = await client.call("refresh_token", token=api.token("ann", token_id="second"))
    assert reply["error"]["code"] == "auth.revoked"


async def test_refreshed_connection_is_ended_by_its_new_token_alone(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann", token_id="first")
    assert (await client.call("refresh_token", token=api.token("ann", token_id="second")))["ok"]
    assert (await revoke(api, jti="first"))["closed"] == 0
    assert await client.pending_events() == []
    assert (await revoke(api, jti="second"))["closed"] == 1
    await until_ended(client)


async def test_will_of_a_revoked_user_is_taken_back(start_api: StartApi) -> None:
    api = await start_api()
    message = {"topic": "RISK_ALERTS", "data": {"level": "HIGH", "message": "gone"}}
    clients = {user: await api.join_market(user) for user in ("ann", "eve")}
    for user, client in clients.items():
        will = {"after_ms": 1000, "messages": [{**message, "user": user}]}
        assert (await client.call("will", will))["ok"]
    await revoke(api, user="ann")
    for client in clients.values():
        client.cut()
    await until(lambda: not api.server.sockets.connections())
    # The will of the other user shows that this one's had its time too.
    api.clock.advance(5)
    await until(lambda: api.server.counters.total("wills.published") > 0)
    api.clock.advance(60)
    assert api.server.counters.total("wills.published") == 1


async def test_revocations_are_listed_in_pages_and_lifted(start_api: StartApi) -> None:
    api = await start_api()
    made = [(await revoke(api, jti=f"t{each}"))["revocation"] for each in range(3)]
    first = await api.call("GET", "/tokens/revoked", params={"limit": 2})
    rest = await api.call(
        "GET", "/tokens/revoked", params={"limit": 2, "cursor": first["next_cursor"]}
    )
    listed = first["revocations"] + rest["revocations"]
    assert sorted(listed, key=str) == sorted(made, key=str)
    assert "next_cursor" not in rest
    lifted = await api.call("DELETE", f"/tokens/revoked/{made[0]['id']}")
    assert lifted["revocation"] == made[0]
    assert await connect_error(api, api.token(token_id="t0")) == ""
    assert await connect_error(api, api.token(token_id="t1")) == "auth.revoked"
    assert await api.refusal("DELETE", f"/tokens/revoked/{made[0]['id']}", 404) == "request.invalid"


async def test_weaker_revocation_does_not_weaken_the_earlier_one(start_api: StartApi) -> None:
    api = await start_api()
    token = api.token("ann", ttl_seconds=1000)
    api.clock.advance(1)
    await revoke(api, user="ann", seconds=500)
    await revoke(api, user="ann", before=1, seconds=5)
    api.pass_time(10)
    assert await connect_error(api, token) == "auth.revoked"


async def test_org_revokes_only_its_own_tokens(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann", token_id="t1", org="other")
    api.clock.advance(1)
    for body in ({"user": "ann"}, {"jti": "t1"}):
        answer = await revoke(api, **body)
        assert answer["closed"] == 0
        stranger = api.operator(org="other")
        path = f"/tokens/revoked/{answer['revocation']['id']}"
        assert await api.refusal("DELETE", path, 404, token=stranger) == "request.invalid"
        listed = await api.call("GET", "/tokens/revoked", token=stranger)
        assert listed["revocations"] == []
    assert await client.pending_events() == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "ann", "jti": "t1"},
        {"user": ""},
        {"jti": 7},
        {"user": "ann", "before": "yesterday"},
        {"user": "ann", "before": 1_800_000_000_000},
        {"user": "ann", "seconds": 0},
        {"user": "ann", "seconds": -1},
    ],
)
async def test_unclear_revocation_is_refused(start_api: StartApi, body: dict[str, Any]) -> None:
    api = await start_api()
    assert await api.refusal("POST", "/tokens/revoke", 400, json=body) == "request.invalid"


async def test_revocation_survives_a_restart_with_a_file(
    aiohttp_client: StartClient, tmp_path: Path
) -> None:
    url = f"file:{tmp_path / 'data'}"
    first = await open_api(aiohttp_client, broker__url=url)
    token = first.token("ann")
    first.clock.advance(1)
    await revoke(first, user="ann")
    await first.http.close()
    second = await open_api(aiohttp_client, broker__url=url, clock=first.clock)
    assert await connect_error(second, token) == "auth.revoked"


async def test_python_client_of_a_revoked_user_ends_with_a_clear_error(
    start_api: StartApi,
) -> None:
    api = await start_api()
    api.clock.advance(-1)
    token = api.token("ann")
    api.clock.advance(1)
    client = Client(api.url, token)
    await client.start()
    prices = client.market.prices("BTCUSDT")
    reading = anext(aiter(prices))
    await until(lambda: api.residue()["subscriptions"] == 1 or api.residue()["sockets"] == 1)
    await revoke(api, user="ann")
    with pytest.raises(TokenRevoked, match="sign in again"):
        await reading
    await client.close()
    # Refused at connect, it does not try again, although its function has newer tokens.
    asked: list[str] = []

    def get_token() -> str:
        asked.append(token)
        return token

    with pytest.raises(TokenRevoked):
        await Client(api.url, get_token).start()
    assert len(asked) == 1
