"""Property test: any sequence of trades, resets and new nodes gives the bars of the trades."""

import asyncio
from decimal import Decimal
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.core.log.entries import Reset
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import MarketRig, trader

VIEW = "TRADES:A@5s"
INTERVAL_MS = 5000

steps = st.lists(
    st.one_of(
        # A trade: seconds passed before it, how late it is, price and quantity.
        st.tuples(
            st.just("trade"),
            st.integers(0, 4),
            st.integers(0, 9),
            st.integers(1, 9),
            st.integers(1, 9),
        ),
        st.sampled_from([("sweep",), ("reset",), ("new client",), ("turn",), ("another node",)]),
    ),
    max_size=40,
)


class Chart:
    """What a client knows of the bars."""

    def __init__(self, link: RecordingLink, reply: Any) -> None:
        self.link = link
        self.bars: dict[int, dict[str, Any]] = {}
        self._received = 0
        if reply["snapshot"] is not None:
            self._apply(reply["snapshot"])

    def receive(self) -> None:
        messages = self.link.messages("trades")
        for each in messages[self._received :]:
            self._apply(each)
        self._received = len(messages)

    def _apply(self, message: Any) -> None:
        if message["type"] == "snapshot":
            self.bars = {}
        self.bars |= {each["t"]: each for each in message["data"]["bars"]}


class Bars:
    """A market with clients of candles; `another node` starts from what is kept."""

    def __init__(self) -> None:
        self.trades: list[tuple[int, int, int]] = []
        self.charts: list[Chart] = []

    async def open(self) -> None:
        self.market = await MarketRig.create()
        await self.market.kept.start()

    async def step(self, step: tuple[Any, ...]) -> None:
        market = self.market
        match step:
            case ("trade", seconds, late, price, quantity):
                market.clock.advance(seconds)
                ts_ms = int(market.clock.time() * 1000) - late * 1000
                self.trades.append((ts_ms, price, quantity))
                one = {"id": 1, "price": str(price), "qty": f"{quantity}.5", "side": "buy"}
                await market.publishing.publish("TRADES:A", {"trades": [{**one, "ts": ts_ms}]})
            case ("sweep",):
                market.clock.advance(5.0)
                await market.keeper.sweep()
            case ("reset",):
                head = market.broker.head_of("TRADES:A")
                latest = market.broker.latest_of("TRADES:A")
                market.hub.reset(Reset("TRADES:A", head, latest))
                await market.topics.rebuild_views()
                await market.keeper.sweep()
            case ("new client",):
                name = f"client{len(self.charts)}"
                link = market.connect(name)
                replies = await market.service.subscribe(name, trader(name), [VIEW])
                self.charts.append(Chart(link, orjson.loads(orjson.dumps(replies))[VIEW]))
            case ("another node",):
                for number in range(len(self.charts)):
                    await market.service.remove_connection(f"client{number}")
                self.charts.clear()
            case _:
                market.settle()

    async def check(self) -> None:
        """The candles, and what each client knows, are those of the trades."""
        self.market.settle()
        expected = self.expected()
        found = await self.market.candles.find(trader(), "A", "5s", 1000)
        assert [plain(each) for each in found.bars] == expected
        for chart in self.charts:
            chart.receive()
            assert [plain(chart.bars[t]) for t in sorted(chart.bars)] == expected

    def expected(self) -> list[tuple[Any, ...]]:
        bars: dict[int, list[tuple[int, int]]] = {}
        for ts_ms, price, quantity in self.trades:
            bars.setdefault(ts_ms - ts_ms % INTERVAL_MS, []).append((price, quantity))
        return [
            (
                *(t, inside[0][0], max(inside)[0], min(inside)[0], inside[-1][0]),
                sum(Decimal(f"{quantity}.5") for _, quantity in inside),
                *(len(inside), t != max(bars)),
            )
            for t, inside in sorted(bars.items())
        ]


def plain(bar: dict[str, Any]) -> tuple[Any, ...]:
    prices = (int(bar[name]) for name in "ohlc")
    return (bar["t"], *prices, Decimal(bar["v"]), bar["n"], bar["closed"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_any_sequence_gives_the_bars_of_the_trades(sequence: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        bars = Bars()
        await bars.open()
        for step in sequence:
            await bars.step(step)
            await bars.check()

    asyncio.run(play())
