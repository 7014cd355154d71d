"""The newest trades of all symbols, newest first."""

from collections import deque

from rich import box
from rich.table import Table
from rich.text import Text

from client_sdk.contract import Trade, TradesMessage
from client_sdk.reading.gaps import Gap
from client_sdk.tools.screens.text import time_text


class TapePanel:
    """A tape of trades; a gap shows as a line of its own."""

    def __init__(self, *, lines: int) -> None:
        self._items: deque[tuple[str, Trade] | Gap] = deque(maxlen=lines)

    def add(self, item: TradesMessage | Gap) -> None:
        """Add the trades of a message."""
        if isinstance(item, Gap):
            self._items.appendleft(item)
            return
        for trade in item.data.trades:
            self._items.appendleft((item.symbol or item.topic, trade))

    def render(self) -> Table:
        """The table of trades."""
        table = Table(title="Trades", title_justify="left", box=box.SIMPLE_HEAD, expand=True)
        for name in ("time", "symbol", "side", "price", "qty"):
            table.add_column(name, justify="right" if name in ("price", "qty") else "left")
        for item in self._items:
            if isinstance(item, Gap):
                table.add_row("", item.topic, Text(f"missing from {item.missed_from}", "red"))
                continue
            symbol, trade = item
            style = "green" if trade.side == "buy" else "red"
            side = Text(str(trade.side), style)
            table.add_row(time_text(trade.ts), symbol, side, str(trade.price), str(trade.qty))
        return table
