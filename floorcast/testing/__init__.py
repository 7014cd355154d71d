"""For tests of users' own code: a server in memory, and recorded streams.

It needs `floorcast[server]`. The suites of backends, `floorcast.testing.broker_suite`,
`presence_suite` and `limits_suite`, need pytest and pytest-asyncio too.
"""

from pathlib import Path

from floorcast.extras import require_server

require_server()

from floorcast.testing.brokers import Bounds, BrokerCluster, BrokerNode
from floorcast.testing.clock import ManualClock
from floorcast.testing.limits import LimitsCluster, LimitsNode
from floorcast.testing.presence import PresenceCluster, PresenceNode
from floorcast.testing.server import FakeServer, fake_server

RECORDED_MARKET = Path(__file__).parent / "recorded_market.jsonl"
"""A short recording of prices, an order book and trades of BTCUSDT and ETHUSDT."""

__all__ = [
    "RECORDED_MARKET",
    "Bounds",
    "BrokerCluster",
    "BrokerNode",
    "FakeServer",
    "LimitsCluster",
    "LimitsNode",
    "ManualClock",
    "PresenceCluster",
    "PresenceNode",
    "fake_server",
]
