"""Listing connections and nodes by HTTP."""

from typing import Any

from tests.kit.server.api import ApiNode, StartApi

PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}


async def all_pages(api: ApiNode, **filters: Any) -> list[list[str]]:
    """The connection ids of each page."""
    pages: list[list[str]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await api.call("GET", "/connections", params={**filters, **cursor})
        pages.append([each["connection_id"] for each in answer["connections"]])
        if "next_cursor" not in answer:
            return pages
        cursor = {"cursor": answer["next_cursor"]}


async def test_connections_are_paged_without_gaps_and_repeats(start_api: StartApi) -> None:
    api = await start_api()
    clients = [await api.join_session(f"user{each}") for each in range(5)]
    pages = await all_pages(api, limit=2)
    assert [len(each) for each in pages] == [2, 2, 1]
    expected = {each.welcome["connection_id"] for each in clients}
    assert {each for page in pages for each in page} == expected


async def test_connections_are_narrowed_by_user_topic_and_session(
    start_api: StartApi,
) -> None:
    api = await start_api()
    ann = await api.join_session("ann", "room")
    bob = await api.join_session("bob")
    market = await api.join_market("bob")
    await market.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
    [[found]] = await all_pages(api, user="ann")
    assert found == ann.welcome["connection_id"]
    [[found]] = await all_pages(api, session="room")
    assert found == ann.welcome["connection_id"]
    [[found]] = await all_pages(api, topic="PRICE:BTCUSDT")
    [of_bob] = await all_pages(api, user="bob")
    assert set(of_bob) == {found, bob.welcome["connection_id"]}
    assert await all_pages(api, user="ann", topic="PRICE:BTCUSDT") == [[]]


async def test_connection_shows_what_it_is_and_does(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_market("ann", ttl_seconds=600)
    # A tick of the server too: the next one would end an interval.
    api.pass_time(5)
    await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"], "interval_ms": 1000})
    message = {"topic": "PRICE:BTCUSDT", "data": PRICE}
    await api.call("POST", "/publish", json={"messages": [message] * 3})
    [[connection_id]] = await all_pages(api)
    answer = await api.call("GET", f"/connections/{connection_id}")
    shown = answer["connection"]
    now_ms = int(api.clock.time() * 1000)
    assert shown["node"] == api.server.backend.cluster.node
    assert shown["ip"] == "127.0.0.1"
    assert shown["connected_at"] == now_ms - 5000
    assert shown["expires_at"] == now_ms + 595_000
    assert shown["last_activity_at"] == now_ms
    assert shown["bytes_waiting"] == shown["dropped"] == 0
    assert shown["lag"] == 3
    assert shown["subscriptions"] == [
        {"topic": "PRICE:BTCUSDT", "interval_ms": 1000, "seq": 0, "lag": 3}
    ]


async def test_connections_of_another_org_are_not_there(start_api: StartApi) -> None:
    api = await start_api()
    client = await api.join_session("ann", "room", org="other")
    connection_id = client.welcome["connection_id"]
    assert await all_pages(api) == [[]]
    assert await all_pages(api, session="room") == [[]]
    code = await api.refusal("GET", f"/connections/{connection_id}", 404)
    assert code == "request.invalid"
    token = api.operator(org="other")
    await api.call("GET", f"/connections/{connection_id}", token=token)


async def test_nodes_and_stats_count_the_connections_of_the_org(
    start_api: StartApi,
) -> None:
    api = await start_api()
    await api.join_session("ann")
    await api.join_session("bob", org="other")
    [node] = (await api.call("GET", "/nodes"))["nodes"]
    assert (node["connections"], node["users"], node["ready"]) == (1, 1, True)
    assert node["figures"]["connections"] == 2
    stats = await api.call("GET", "/stats")
    assert (stats["nodes"], stats["connections"], stats["users"]) == (1, 1, 1)
    assert stats["figures"]["connections"] == 2


async def test_subscribers_of_a_topic_are_those_of_the_org(start_api: StartApi) -> None:
    api = await start_api()
    await api.call("POST", "/publish", json={"messages": [{"topic": "PRICE:A", "data": PRICE}]})
    for org in ("default", "default", "other"):
        client = await api.join_market("ann", org=org)
        await client.call("subscribe", {"topics": ["PRICE:A"]})
    assert (await api.call("GET", "/topics/PRICE:A"))["subscribers"] == 2


async def test_one_connection_of_a_user_is_ended_and_the_other_stays(start_api: StartApi) -> None:
    api = await start_api()
    ended, kept = [await api.join_session("ann") for _ in range(2)]
    path = f"/connections/{ended.welcome['connection_id']}/disconnect"
    assert (await api.call("POST", path, token=api.operator(org="other")))["closed"] == 0
    body = {"code": "desk.closed", "message": "the desk is closed", "reconnect": True}
    assert (await api.call("POST", path, json=body))["closed"] == 1
    assert await ended.next("goodbye") == {**body, "after_ms": 0}
    await ended.client.until_closed()
    assert await all_pages(api) == [[kept.welcome["connection_id"]]]
    assert (await api.call("POST", path))["closed"] == 0


async def test_stats_count_refusals_by_code_and_nodes_show_their_memory(
    start_api: StartApi,
) -> None:
    api = await start_api()
    client = await api.join_market("ann")
    for _ in range(2):
        await client.call("subscribe", {"topics": []})
    stats = await api.call("GET", "/stats")
    assert stats["refusals"] == {"request.invalid": 2}
    assert stats["figures"]["refused"] == 2
    [node] = (await api.call("GET", "/nodes"))["nodes"]
    assert node["refusals"] == stats["refusals"]
    assert node["feeds"] == []
    assert node.get("memory_bytes", 1 << 24) > 1_000_000


async def test_subscribed_topics_are_paged_by_name(start_api: StartApi) -> None:
    api = await start_api()
    messages = [{"topic": f"PRICE:{each}", "data": PRICE} for each in "ABC"]
    await api.call("POST", "/publish", json={"messages": [*messages, messages[0]]})
    for topics in (["PRICE:A", "PRICE:B", "TRADES:A"], ["PRICE:A", "USER_DATA"]):
        client = await api.join_market("ann")
        await client.call("subscribe", {"topics": topics})
    first = await api.call("GET", "/topics", params={"limit": 2})
    assert [(each["topic"], each["subscribers"], each["seq"]) for each in first["topics"]] == [
        ("PRICE:A", 2, 2),
        ("PRICE:B", 1, 1),
    ]
    assert {each["state"] for each in first["topics"]} == {"LIVE"}
    rest = await api.call("GET", "/topics", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [each["topic"] for each in rest["topics"]] == ["TRADES:A"]
    assert "next_cursor" not in rest
    found = await api.call("GET", "/topics", params={"match": "*:A"})
    assert [each["topic"] for each in found["topics"]] == ["PRICE:A", "TRADES:A"]
    other = await api.call("GET", "/topics", token=api.operator(org="other"))
    assert other["topics"] == []
