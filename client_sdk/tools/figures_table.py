"""Draws the figures of all nodes as a table."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client_sdk.tools.figures import GAUGES, Figures

# The columns that come first, if the server has them; gauges as they are, counters a second.
_FIRST = (
    "connections",
    "users",
    "topics",
    "sessions",
    "messages_in",
    "messages_out",
    "merged",
    "lagging",
    "dropped",
    "refused",
)


def figures_table(figures: Figures, before: Figures | None, problem: str) -> RenderableType:
    """One column a node, the most important figures first."""
    table = Table(expand=False)
    table.add_column("figure")
    for node in figures.nodes:
        table.add_column(node, justify="right")
    if len(figures.nodes) > 1:
        table.add_column("all", justify="right", style="bold")
    rates = {node: figures.rates(node, before) for node in figures.nodes}
    known = {name for each in figures.nodes.values() for name in each}
    names = [name for name in _FIRST if name in known] + sorted(known - set(_FIRST))
    for name in names:
        is_gauge = name in GAUGES
        values = [
            float(figures.nodes[node].get(name, 0)) if is_gauge else rates[node].get(name, 0.0)
            for node in figures.nodes
        ]
        if len(values) > 1:
            values.append(sum(values))
        label = name if is_gauge else f"{name} /s"
        table.add_row(label, *(f"{value:,.0f}" for value in values))
    lines: list[RenderableType] = [table]
    if figures.incomplete:
        lines.append(Text(f"no answer from {', '.join(figures.incomplete)}", "yellow"))
    lines.append(Text(problem, "bold red") if problem else Text("Ctrl-C ends", "dim"))
    return Group(*lines)
