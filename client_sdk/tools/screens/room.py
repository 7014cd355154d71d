"""Draws a session: the number of participants, and its newest messages."""

import json
from collections import deque

from rich import box
from rich.markup import escape
from rich.table import Table

from client_sdk.contract import SessionMessage, UserJoined, UserLeft
from client_sdk.reading.gaps import Gap
from client_sdk.sessions.session import AnySessionEvent
from client_sdk.tools.screens.text import time_text

_MAX_CELL = 100


class RoomPanel:
    """The messages, joins and leaves of one session."""

    def __init__(self, session_id: str, participant_count: int, *, lines: int) -> None:
        self._session_id = session_id
        self._participant_count = participant_count
        self._lines: deque[tuple[str, str, str]] = deque(maxlen=lines)

    def add(self, item: SessionMessage | Gap) -> None:
        """Add a message."""
        if isinstance(item, Gap):
            self._lines.append(("", "", f"[red]missing from {item.missed_from}[/]"))
            return
        text = json.dumps(item.data, ensure_ascii=False)
        self._lines.append((time_text(item.ts), escape(item.user_id), escape(text[:_MAX_CELL])))

    def add_event(self, event: AnySessionEvent) -> None:
        """Add a join or leave; a signal leaves no trace."""
        count = getattr(event, "participant_count", None)
        if count is not None:
            self._participant_count = count
        if isinstance(event, UserJoined | UserLeft):
            what = "joined" if isinstance(event, UserJoined) else "left"
            self._lines.append((time_text(event.ts), escape(event.user_id), f"[dim]{what}[/]"))

    def render(self) -> Table:
        """The table of messages."""
        title = f"{escape(self._session_id)}: {self._participant_count} in"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, expand=True)
        for name in ("time", "user", "message"):
            table.add_column(name)
        for line in self._lines:
            table.add_row(*line)
        return table
