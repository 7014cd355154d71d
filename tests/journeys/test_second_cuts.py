"""Who is cut off again before it has got all that it missed gets it once, when it is back."""

from tests.kit.clients.recovering import Returning
from tests.kit.server.in_process import PRICE, running


async def test_who_is_back_is_told_so_before_it_gets_what_it_missed() -> None:
    # The stock client keeps events that come before CONNECT for when it comes. If it is cut off in
    # between, it has them, has not said so, and hears them twice.
    async with running() as floor:
        ann = Returning(floor, "ann", "/market")
        await ann.come()
        await ann.call("subscribe", topics=["TRADES:A", "PRICE:A"])
        await ann.cut()
        await floor.server.publishing.publish("PRICE:A", PRICE)
        for _ in range(2):
            await ann.glimpse()
        [(event, body)] = await ann.come()
        assert (event, body["prev"], body["seq"]) == ("price", 0, 1)
        await ann.cut()


async def test_a_notice_is_not_heard_twice_by_who_is_cut_off_twice() -> None:
    async with running() as floor:
        ann = Returning(floor, "ann", "/session")
        await ann.come()
        await ann.cut()
        await floor.server.notifications.notify("default", "ann", "ping", {"n": 1})
        for _ in range(3):
            await ann.glimpse()
        assert [event for event, _ in await ann.come()] == ["notification"]
        await ann.cut()


async def test_who_joined_before_it_came_is_not_told_to_who_is_back() -> None:
    async with running() as floor:
        ann, bob = Returning(floor, "ann", "/session"), Returning(floor, "bob", "/session")
        for each in (ann, bob):
            await each.come()
        await bob.call("join", session_id="desk")
        await ann.call("join", session_id="desk")
        await ann.cut()
        assert await ann.come() == []
        assert ann.recovered
        await ann.cut()
        await bob.cut()
