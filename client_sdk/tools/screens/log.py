"""The newest messages of private topics, one line each."""

import json
from collections import deque

from rich import box
from rich.markup import escape
from rich.table import Table

from client_sdk.contract import MarketMessage
from client_sdk.reading.gaps import Gap
from client_sdk.tools.screens.text import time_text

_MAX_CELL = 100


class LogPanel:
    """Messages in the order of their arrival."""

    def __init__(self, *, lines: int) -> None:
        self._lines: deque[tuple[str, str, str]] = deque(maxlen=lines)

    def add(self, item: MarketMessage | Gap) -> None:
        """Add a message."""
        if isinstance(item, Gap):
            self._lines.append(("", item.topic, f"[red]missing from {item.missed_from}[/]"))
            return
        data = item.model_dump(mode="json", include={"data"}, exclude_unset=True).get("data")
        text = escape(json.dumps(data, ensure_ascii=False)[:_MAX_CELL])
        self._lines.append((time_text(item.ts), item.topic, text))

    def render(self) -> Table:
        """The table of messages."""
        table = Table(title="Messages", title_justify="left", box=box.SIMPLE_HEAD, expand=True)
        for name in ("time", "topic", "data"):
            table.add_column(name)
        for line in self._lines:
            table.add_row(*line)
        return table
