"""Tests that nothing of a client is left when its connection has ended."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from server.core.recovery.checkpoints import Checkpoints
from server.delivery import DeliveryConfig
from server.delivery.clients import Client, Subscription
from tests.kit.rigs.market import MarketRig


@pytest.fixture(autouse=True)
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def remaining() -> int:
    return sum(isinstance(each, Client | Subscription | Checkpoints) for each in gc.get_objects())


@pytest.mark.parametrize("parked", [False, True])
async def test_detached_client_is_freed_without_a_collection(parked: bool) -> None:
    rig = await MarketRig.create(DeliveryConfig(recoverable=True))
    await rig.client("bob", "PRICE:A")
    before = remaining()
    rig.connect("ann", numbered=True)
    await rig.subscribe("ann", "PRICE:A", "TRADES:A", interval_ms=100)
    await rig.price("A")
    channel = rig.hub.channel("PRICE:A")
    assert channel is not None
    # The reply to this is never sent.
    rig.hub.unsubscribe("ann", channel)
    rig.hub.subscribe("ann", channel, 100)
    rig.hub.schedule_snapshot("ann", channel)
    assert remaining() > before
    if parked:
        rig.park("ann")
    await rig.service.remove_connection("ann")
    rig.settle()
    assert remaining() == before


async def test_parked_client_keeps_no_lost_connection() -> None:
    rig = await MarketRig.create(DeliveryConfig(recoverable=True))
    lost = weakref.ref(rig.connect("ann", numbered=True))
    await rig.subscribe("ann", "PRICE:A", "TRADES:A", interval_ms=100)
    await rig.price("A")
    rig.park("ann")
    await rig.price("A")
    assert lost() is None
    again = rig.link()
    assert rig.resume("ann", again, None)
    assert again.messages("price")
