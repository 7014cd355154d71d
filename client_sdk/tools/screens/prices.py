"""A table of prices, one row a symbol."""

from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from client_sdk.contract import FeedState, PriceMessage
from client_sdk.tools.screens.text import age_text, change_style


@dataclass(slots=True)
class _Row:
    message: PriceMessage
    before: str | None = None
    count: int = 0


class PricesPanel:
    """The newest price of each symbol."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def add(self, message: PriceMessage) -> None:
        """Show a message in its symbol's row."""
        row = self._rows.get(message.topic)
        if row is None:
            self._rows[message.topic] = _Row(message)
        else:
            row.before = str(row.message.data.last)
            row.message = message
            row.count += 1

    def render(self, states: dict[str, FeedState | None]) -> Table:
        """The table; `states` are those of the topics' feeds."""
        table = Table(title="Prices", title_justify="left", box=box.SIMPLE_HEAD, expand=True)
        for name in ("symbol", "bid", "ask", "last", "volume", "seq", "age", "merged", "updates"):
            table.add_column(name, justify="left" if name == "symbol" else "right")
        table.add_column("feed")
        for topic, row in sorted(self._rows.items()):
            data, message = row.message.data, row.message
            last = str(data.last)
            state = states.get(topic)
            table.add_row(
                Text(message.symbol or topic, style="bold"),
                str(data.bid),
                str(data.ask),
                Text(last, style=change_style(row.before, last)),
                str(data.volume),
                str(message.seq),
                age_text(message.age),
                "" if message.merged is None else str(message.merged),
                str(row.count),
                state_text(state),
                style="dim" if state is FeedState.STALE else "",
            )
        return table


def state_text(state: FeedState | None) -> Text:
    """The state of a feed in its color."""
    if state is None:
        return Text("")
    return Text(state.value, style="green" if state is FeedState.LIVE else "yellow")
