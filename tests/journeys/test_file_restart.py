"""Clients of a server with a data folder carry on after its restart."""

from pathlib import Path

from tests.kit.clients.recovering import market_client, publish_trades, trade_ids
from tests.kit.clients.session_client import SessionClient
from tests.kit.clock import ManualClock
from tests.kit.server.in_process import PRICE, running


async def test_market_client_resumes_after_a_restart(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        ann = await market_client(server, "TRADES:A", "PRICE:A")
        await publish_trades(server, 1)
        await server.server.market.publishing.publish("PRICE:A", PRICE)
        pid = ann.pid
    while (await ann.next())[0] != "goodbye":
        pass
    ann.wire.cut()
    async with running(settings, clock=clock) as server:
        await publish_trades(server, 2, 3)
        ann.node = server
        missed = await ann.connect()
        assert (ann.recovered, ann.pid) == (True, pid)
        assert trade_ids(missed) == [2, 3]
        await publish_trades(server, 4)
        assert trade_ids([await ann.next()]) == [4]
        await ann.cut()


async def test_session_goes_on_after_a_restart(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        first = await SessionClient.connect(server, "ann", "room")
        sent = await first.call("send", session_id="room", data={"n": 1}, id="one")
        await server.server.sessions.notifications.notify(
            "default", "bob", "filled", {"n": 7}, critical=True, identifier="fill"
        )
    first.cut()
    async with running(settings, clock=clock) as server:
        bob = await SessionClient.connect(server, "bob")
        assert (await bob.next("notification"))["data"] == {"n": 7}
        since = {"epoch": sent["epoch"], "seq": 0}
        joined = await bob.call("join", session_id="room", since=since)
        assert joined["recovered"]
        assert [each["data"] for each in joined["messages"]] == [{"n": 1}]
        assert [each["user_id"] for each in joined["participants"]] == ["bob"]
        ann = await SessionClient.connect(server, "ann", "room")
        again = await ann.call("send", session_id="room", data={"n": 1}, id="one")
        assert again == sent, "the retry of a message whose reply was lost"
        ann.cut()
        bob.cut()
