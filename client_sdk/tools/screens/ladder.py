"""An order book as a ladder: asks above, bids below, with bars for the quantities."""

from decimal import Decimal

from rich import box
from rich.table import Table
from rich.text import Text

from client_sdk.market.live_book import BookState, BookStatus
from client_sdk.tools.screens.text import age_text

_BAR = 16


class LadderPanel:
    """The best levels of one book."""

    def __init__(self, symbol: str, *, levels: int) -> None:
        self.symbol = symbol
        self._levels = levels

    def render(self, book: BookState, resyncs: int) -> Table:
        """The ladder of a book at this moment."""
        live = book.status is BookStatus.LIVE
        status = Text(book.status.value, style="green" if live else "yellow")
        title = Text.assemble((f"{self.symbol} ", "bold"), status, f" age {age_text(book.age)}")
        table = Table(
            title=title, title_justify="left", box=box.SIMPLE_HEAD, expand=True, show_header=False
        )
        for side in ("right", "right", "left"):
            table.add_column(justify="right" if side == "right" else "left", no_wrap=True)
        bids, asks = book.bids[: self._levels], book.asks[: self._levels]
        most = max((quantity for _, quantity in (*bids, *asks)), default=Decimal(1))
        for price, quantity in reversed(asks):
            table.add_row(Text(f"{price:f}", "red"), f"{quantity:f}", _bar(quantity, most, "red"))
        spread = "" if book.spread is None else f"spread {book.spread:f}"
        table.add_row(Text(spread, "dim"), "", Text(f"resyncs {resyncs}", "dim"))
        for price, quantity in bids:
            bar = _bar(quantity, most, "green")
            table.add_row(Text(f"{price:f}", "green"), f"{quantity:f}", bar)
        return table


def _bar(quantity: Decimal, most: Decimal, style: str) -> Text:
    return Text("█" * max(1, round(_BAR * quantity / most)), style=style)
