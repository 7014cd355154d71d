"""Draws the results as PNG."""

import importlib.util
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_KEPT = {"p50 ms": "median", "p99 ms": "99th percentile"}


def draw(results: dict[str, dict[str, Any]], folder: Path) -> list[Path]:
    """Draw what was measured; returns the files, none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        print("matplotlib is not installed: no plots")
        return []
    import matplotlib as mpl

    mpl.use("Agg")
    drawn = []
    if "sweep" in results:
        drawn.append(_draw_sweep(results["sweep"]["rows"], folder / "sweep.png"))
    if "growth" in results or "crowd" in results:
        growth, crowd = (results.get(name, {}).get("rows", ()) for name in ("growth", "crowd"))
        drawn.append(_draw_growth(growth, crowd, folder / "growth.png"))
    verdicts = [each for result in results.values() for each in result.get("verdicts", ())]
    if verdicts:
        drawn.append(_draw_goals(verdicts, folder / "goals.png"))
    return drawn


def _draw_sweep(rows: list[dict[str, Any]], path: Path) -> Path:
    """Latency by rate, one line for each server."""
    from matplotlib import pyplot as plt

    lines: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        lines[row["server"]].append(row)
    figure, panes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for pane, (key, title) in zip(panes, _KEPT.items(), strict=True):
        for server, each in lines.items():
            pane.plot(
                [row["messages/s"] for row in each],
                [max(0.05, min(row[key], 10_000)) for row in each],
                marker="o",
                label=server,
            )
        pane.set(xscale="log", yscale="log", title=title, xlabel="messages/s to 1,000 clients")
        pane.grid(alpha=0.3)
    panes[0].set_ylabel("ms since due")
    panes[0].legend()
    return _save(figure, path)


def _draw_growth(
    growth: Iterable[dict[str, Any]], crowd: Iterable[dict[str, Any]], path: Path
) -> Path:
    """What a delivery, a connect and a connection cost, by subscribers, topics, connections."""
    from matplotlib import pyplot as plt

    figure, panes = plt.subplots(1, 4, figsize=(15, 3.8))
    for pane, axis in zip(panes, ("subscribers", "topics"), strict=False):
        each = [row for row in growth if row["grows"] == axis]
        pane.plot([row["to"] for row in each], [row["CPU us/delivery"] for row in each], marker="o")
        pane.set(xscale="log", title="CPU us a delivery", xlabel=axis)
    lines = (("CPU ms to connect", "CPU ms to connect and subscribe"), ("KB each", "KB each"))
    for pane, (key, title) in zip(panes[2:], lines, strict=True):
        for shape in ("all", "market"):
            each = [row for row in crowd if row["shape"] == shape]
            pane.plot(
                [row["connections"] for row in each],
                [row[key] for row in each],
                marker="o",
                label=shape,
            )
        pane.set(title=title, xlabel="connections")
        pane.legend()
    for pane in panes:
        pane.set_ylim(bottom=0)
        pane.grid(alpha=0.3)
    return _save(figure, path)


def _draw_goals(verdicts: list[dict[str, Any]], path: Path) -> Path:
    """Each value as a share of its bound: a bar beyond 1 misses, or exceeds a minimum."""
    from matplotlib import pyplot as plt

    judged = [each for each in verdicts if each["bound"]]
    figure, pane = plt.subplots(figsize=(9, 0.32 * len(judged) + 1.2))
    shares = [each["value"] / each["bound"] for each in judged]
    colors = ["#2a9d5c" if each["met"] else "#c8443f" for each in judged]
    pane.barh([f"{each['number']} {each['what']}" for each in judged], shares, color=colors)
    pane.axvline(1.0, color="black", linewidth=1)
    pane.set(xscale="log", xlabel="value / bound (green: met)")
    pane.invert_yaxis()
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return path
