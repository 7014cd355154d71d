"""Who is cut off again before it has got all that it missed gets it once, when it is back."""

from tests.kit.clients.recovering import RecoveringClient
from tests.kit.server.in_process import PRICE, running


async def test_who_is_back_is_told_so_before_it_gets_what_it_missed() -> None:
    # The stock client keeps events that come before CONNECT for when it comes. If it is cut off in
    # between, it has them, has not said so, and hears them twice.
    async with running() as floor:
        ann = RecoveringClient(floor, "ann", "/market")
        await ann.connect()
        await ann.call("subscribe", topics=["TRADES:A", "PRICE:A"])
        await ann.cut()
        await floor.server.publishing.publish("PRICE:A", PRICE)
        for _ in range(2):
            await ann.connect_and_cut()
        [(event, body)] = await ann.connect()
        assert (event, body["prev"], body["seq"]) == ("price", 0, 1)
        await ann.cut()


async def test_a_notice_is_not_heard_twice_by_who_is_cut_off_twice() -> None:
    async with running() as floor:
        ann = RecoveringClient(floor, "ann", "/session")
        await ann.connect()
        await ann.cut()
        await floor.server.notifications.notify("default", "ann", "ping", {"n": 1})
        for _ in range(3):
            await ann.connect_and_cut()
        assert [event for event, _ in await ann.connect()] == ["notification"]
        await ann.cut()


async def test_who_joined_before_it_came_is_not_told_to_who_is_back() -> None:
    async with running() as floor:
        ann, bob = (
            RecoveringClient(floor, "ann", "/session"),
            RecoveringClient(floor, "bob", "/session"),
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
