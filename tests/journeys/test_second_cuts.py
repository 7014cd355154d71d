"""Test clients that are cut again during recovery: each missed event arrives once."""

from tests.kit.clients.recovering import RecoveringClient
from tests.kit.server.in_process import PRICE, running


async def test_connect_reply_precedes_missed_events() -> None:
    # The stock client buffers events that precede the CONNECT reply. If it is cut in between, it
    # has them without an offset, and would get them twice.
    async with running() as node:
        ann = RecoveringClient(node, "ann", "/market")
        await ann.connect()
        await ann.call("subscribe", topics=["TRADES:A", "PRICE:A"])
        await ann.cut()
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        for _ in range(2):
            await ann.connect_and_cut()
        [(event, body)] = await ann.connect()
        assert (event, body["prev"], body["seq"]) == ("price", 0, 1)
        await ann.cut()


async def test_client_cut_twice_gets_a_notice_once() -> None:
    async with running() as node:
        ann = RecoveringClient(node, "ann", "/session")
        await ann.connect()
        await ann.cut()
        await node.server.sessions.notifications.notify("default", "ann", "ping", {"n": 1})
        for _ in range(3):
            await ann.connect_and_cut()
        assert [event for event, _ in await ann.connect()] == ["notification"]
        await ann.cut()


async def test_recovered_client_gets_no_earlier_join() -> None:
    async with running() as node:
        ann, bob = (
            RecoveringClient(node, "ann", "/session"),
            RecoveringClient(node, "bob", "/session"),
        )
        for each in (ann, bob):
            await each.connect()
        await bob.call("join", session_id="desk")
        await ann.call("join", session_id="desk")
        await ann.cut()
        assert await ann.connect() == []
        assert ann.recovered
        await ann.cut()
        await bob.cut()
