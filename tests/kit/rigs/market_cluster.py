"""Several market nodes over one broker in memory; a node can miss entries and be reset."""

from collections.abc import Callable

from server.brokers import MemoryBroker
from server.core.log.entries import Entry, Reset
from server.delivery import DeliveryConfig
from server.ports import Clock, ignore
from server.services import SubscribingConfig
from tests.kit.clock import ManualClock
from tests.kit.rigs.market import STALE, MarketRig


class SharedBroker(MemoryBroker):
    """Delivers each entry to every node; one is not delivered to while it is cut off."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, epoch="e1")
        self.nodes: list[NodeBroker] = []

    async def start_once(self) -> None:
        await super().start(self._deliver_to_all)

    def _deliver_to_all(self, entry: Entry) -> None:
        for node in self.nodes:
            node.receive(entry)


class NodeBroker(MemoryBroker):
    """One node's side of a shared broker."""

    shared: SharedBroker

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        self._deliver_here, self._on_reset = deliver, on_reset
        self._channels: set[str] = set()
        self._missed: dict[str, None] = {}
        self.is_cut = False
        self.shared.nodes.append(self)
        self.publish = self.shared.publish  # type: ignore[method-assign]
        self.find = self.shared.find  # type: ignore[method-assign]
        self.head = self.shared.head  # type: ignore[method-assign]
        self.latest = self.shared.latest  # type: ignore[method-assign]
        self.since = self.shared.since  # type: ignore[method-assign]
        self.before = self.shared.before  # type: ignore[method-assign]

    async def watch(self, channel: str) -> None:
        self._channels.add(channel)
        self._missed.pop(channel, None)
        await self.shared.watch(channel)

    async def unwatch(self, channel: str) -> None:
        self._channels.discard(channel)

    def receive(self, entry: Entry) -> None:
        if entry.channel not in self._channels:
            return
        if self.is_cut:
            self._missed[entry.channel] = None
        else:
            self._deliver_here(entry)

    def reconnect(self) -> None:
        """Deliver again; channels that have missed entries are reset."""
        self.is_cut = False
        missed, self._missed = self._missed, {}
        for channel in missed:
            self._on_reset(
                Reset(channel, self.shared.head_of(channel), self.shared.latest_of(channel))
            )


async def market_cluster(
    count: int, delivery: DeliveryConfig, subscribing: SubscribingConfig
) -> list[MarketRig]:
    """Nodes with the same clock and the same topics."""
    clock = ManualClock()
    rigs = [
        MarketRig(delivery, STALE, subscribing=subscribing, broker=NodeBroker, clock=clock)
        for _ in range(count)
    ]
    shared = SharedBroker(clock)
    await shared.start_once()
    for rig in rigs:
        assert isinstance(rig.broker, NodeBroker)
        rig.broker.shared = shared
        await rig.broker.start(rig.hub.deliver, on_reset=rig.hub.reset)
    return rigs
