"""Candles: exact, aligned to UTC, and a function of the trades alone."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from server.core.market.bars import LATE_BARS, Bar, BarSeries, BarTrade


def test_bar_has_the_texts_of_its_trades_and_their_exact_sum() -> None:
    series = BarSeries(60_000, 10)
    series.add([BarTrade(60_001, "10.50", "0.1"), BarTrade(119_999, "1e1", "0.20")])
    (bar,) = series.add([BarTrade(61_000, "10.4", "0." + "0" * 36 + "1")])
    assert bar.body(closed=False) == {
        "t": 60_000,
        "o": "10.50",
        "h": "10.50",
        "l": "10",
        "c": "10.4",
        "v": "0.3" + "0" * 35 + "1",
        "n": 3,
        "closed": False,
    }
    assert Bar.from_body(bar.body(closed=False)) == bar


def test_interval_without_trades_has_no_bar_and_the_next_one_closes() -> None:
    series = BarSeries(1000, 10)
    series.add([BarTrade(500, "1", "1")])
    changed = series.add([BarTrade(5500, "2", "1")])
    assert [(each["t"], each["closed"]) for each in series.bodies(changed)] == [
        (0, True),
        (5000, False),
    ]
    assert [each.t for each in series.bars()] == [0, 5000]


def test_late_trade_changes_its_bar_which_stays_closed() -> None:
    series = BarSeries(1000, 50)
    series.add([BarTrade(0, "1", "1"), BarTrade(2000, "1", "1")])
    changed = series.add([BarTrade(500, "3", "1"), BarTrade(1500, "4", "1")])
    assert [(each["t"], each["n"], each["closed"]) for each in series.bodies(changed)] == [
        (0, 2, True),
        (1000, 1, True),
    ]
    assert [each.t for each in series.bars()] == [0, 1000, 2000]
    series.add([BarTrade((LATE_BARS + 2) * 1000, "1", "1")])
    assert series.add([BarTrade(1999, "9", "1"), BarTrade(0, "9", "1")]) == []


def test_old_bars_are_dropped_and_found_by_time() -> None:
    series = BarSeries(1000, 3)
    for second in range(10):
        series.add([BarTrade(second * 1000, "1", "1")])
    assert [each.t for each in series.bars()] == [7000, 8000, 9000]
    assert [each.t for each in series.bars(before=9000, limit=1)] == [8000]


trades = st.lists(
    st.tuples(st.integers(0, 60_000), st.integers(1, 99), st.integers(1, 999)), max_size=60
)


@given(trades, st.sampled_from([1000, 5000, 60_000]), st.integers(1, 7))
def test_series_agrees_with_the_trades_whatever_the_batches(
    given_trades: list[tuple[int, int, int]], interval_ms: int, size: int
) -> None:
    some = [BarTrade(ts, f"{price}.0", f"0.{qty}") for ts, price, qty in given_trades]
    series = BarSeries(interval_ms, 10_000)
    for start in range(0, len(some), size):
        series.add(some[start : start + size])
    expected: dict[int, list[BarTrade]] = {}
    newest = 0
    for trade in some:
        t = trade.ts_ms // interval_ms * interval_ms
        if t > newest - LATE_BARS * interval_ms or not expected:
            expected.setdefault(t, []).append(trade)
            newest = max(expected)
    assert [each.t for each in series.bars()] == sorted(expected)
    for bar in series.bars():
        inside = expected[bar.t]
        prices = [Decimal(each.price) for each in inside]
        assert (bar.o, bar.c, bar.n) == (inside[0].price, inside[-1].price, len(inside))
        assert (bar.high, bar.low) == (max(prices), min(prices))
        assert bar.v == sum(Decimal(each.quantity) for each in inside)
