"""Prints an answer of the API for people: its fields, and a table for each list of objects."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_MAX_CELL = 60


def print_record(terminal: Console, title: str, record: Mapping[str, object]) -> None:
    """Print the plain fields first, then the nested ones as tables of their own."""
    terminal.print(title, style="bold", markup=False)
    nested: dict[str, Sequence[Mapping[str, object]]] = {}
    fields = Table.grid(padding=(0, 2))
    for name, value in record.items():
        rows = _rows(value)
        if rows is None:
            fields.add_row(name, _text(value))
        else:
            nested[name] = rows
    terminal.print(fields)
    for name, rows in nested.items():
        terminal.print(_table(name, rows))


def _rows(value: object) -> Sequence[Mapping[str, object]] | None:
    """The rows of a list of objects, or of an object of objects by their keys; else None."""
    if isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values()):
        return [{"": key, **each} for key, each in value.items()]
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return value
    return None


def _table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=f"{title} ({len(rows)})", title_justify="left")
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in names))
    return table


def _text(value: object) -> str:
    """A value in one line; escaped, because it may come from a client."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _compact(value)
    return escape(text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…")


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
