"""For tests of users' own code: a server in memory, and recorded streams.

It needs `floorcast[server]`. `floorcast.testing.broker_suite` has the suite of brokers, and needs
pytest and pytest-asyncio too.
"""

from pathlib import Path

from floorcast.extras import require_server

require_server()

from floorcast.testing.brokers import Bounds, BrokerCluster, BrokerNode
from floorcast.testing.clock import ManualClock
from floorcast.testing.server import FakeServer, fake_server

RECORDED_MARKET = Path(__file__).parent / "recorded_market.jsonl"
"""A short recording of prices, an order book and trades of BTCUSDT and ETHUSDT."""

__all__ = [
    "RECORDED_MARKET",
    "Bounds",
    "BrokerCluster",
    "BrokerNode",
    "FakeServer",
    "ManualClock",
    "fake_server",
]
