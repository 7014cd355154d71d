"""Tests exporting a parked client from one node and restoring it on another."""

import pytest

from server.core.log.entries import Position
from server.core.wire.packets import event_head
from server.delivery import DeliveryConfig, ExportedClient, ExportedSubscription
from server.services import SubscribingConfig
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import STALE, MarketRig

CONFIG = DeliveryConfig(buffer_bytes=4096, recoverable=True, backlog_messages=12)


async def create_rig(trades: int = 0) -> MarketRig:
    """A node with a broker of its own, where `bob` subscribes before the trades."""
    rig = await MarketRig.create(
        CONFIG, STALE, subscribing=SubscribingConfig(backlog_messages=12, max_reply_bytes=400)
    )
    await rig.client("bob", "TRADES:A", "PRICE:A")
    for number in range(1, trades + 1):
        await rig.trade("A", number)
    return rig


async def park_ann(rig: MarketRig) -> str | None:
    """Subscribe and park a client that saw the first of two trades; the offset it saw."""
    ann = rig.connect("ann", numbered=True)
    await rig.subscribe("ann", "TRADES:A")
    for number in (1, 2):
        await rig.trade("A", number)
    rig.settle()
    rig.park("ann")
    return ann.numbered_events()[0][2]


def push(rig: MarketRig, name: str) -> None:
    channel = rig.hub.channel("TRADES:A")
    assert channel is not None
    rig.hub.broadcast(channel, event_head("/market", name, b"{}"))


def restore(rig: MarketRig, exported: ExportedClient, offset: str | None) -> bool:
    return rig.hub.restore("ann", rig.link(), offset, exported.subscriptions, exported.pushes)


async def test_export_holds_the_position_after_the_offset() -> None:
    rig = await create_rig()
    offset = await park_ann(rig)
    exported = rig.hub.export("ann", offset)
    assert exported == ExportedClient((ExportedSubscription("TRADES:A", Position("e1", 1), 0),))
    at_the_last_write = rig.hub.export("ann", rig.hub.last_offset("ann"))
    assert at_the_last_write is not None
    assert at_the_last_write.subscriptions[0].position.seq == 2


async def test_export_of_an_unknown_offset_is_none() -> None:
    rig = await create_rig()
    await park_ann(rig)
    assert rig.hub.export("ann", "beef-1") is None
    with pytest.raises(KeyError):
        rig.hub.export("carl", None)


async def test_restored_client_gets_what_it_missed_on_both_nodes() -> None:
    first, second = await create_rig(), await create_rig(trades=3)
    offset = await park_ann(first)
    push(first, "joined")
    first.hub.send_to("ann", event_head("/market", "notice", b"{}"))
    exported = first.hub.export("ann", offset)
    assert exported is not None
    assert restore(second, exported, offset)
    push(second, "left")
    await second.trade("A", 4)
    link = RecordingLink()
    assert second.hub.resume("ann", link, offset)
    second.settle()
    assert [(event, body.get("seq")) for event, body in link.events()] == [
        ("joined", None),
        ("notice", None),
        ("trades", 2),
        ("trades", 3),
        ("left", None),
        ("trades", 4),
    ]


async def test_restored_client_receives_what_follows_at_its_interval() -> None:
    rig = await create_rig()
    exported = ExportedClient((ExportedSubscription("PRICE:A", Position("e1", 0), 100),))
    assert restore(rig, exported, None)
    link = RecordingLink()
    assert rig.hub.resume("ann", link, None)
    await rig.price("A")
    rig.settle()
    assert link.events() == []
    rig.pass_time(0.1)
    assert [event for event, _ in link.events()] == ["price"]


async def test_restore_refuses_what_this_node_cannot_continue() -> None:
    rig = await create_rig(trades=3)
    for channel, position in (
        ("TRADES:B", Position("e1", 0)),
        ("TRADES:A", Position("e1", 4)),
        ("TRADES:A", Position("e0", 3)),
    ):
        assert not restore(rig, ExportedClient((ExportedSubscription(channel, position, 0),)), None)
    known = ExportedClient((ExportedSubscription("TRADES:A", Position("e1", 3), 0),))
    assert not rig.hub.restore("bob", rig.link(), None, known.subscriptions), "bob is connected"
    assert restore(rig, known, None)
    assert not restore(rig, known, None), "ann is parked"
    rig.hub.detach("ann")
    twice = ExportedClient(known.subscriptions * 2)
    assert restore(rig, twice, None), "another node may be wrong, but leaves nothing here"
    await rig.service.remove_connection("bob")
    assert rig.hub.channel("TRADES:A") is not None, "parked clients keep their channels open"
    assert rig.hub.detach("ann") == ("TRADES:A",)
