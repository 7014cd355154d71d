"""The figures of all nodes at one moment, and the rates between two moments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Figures that say how much there is now; all others count up.
GAUGES = frozenset(
    ("connections", "users", "topics", "sessions", "lagging", "limits_alone", "stale_topics")
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What each node answered."""

    at: float
    nodes: Mapping[str, Mapping[str, int]]
    incomplete: tuple[str, ...]

    def rates(self, node: str, before: "Figures | None") -> dict[str, float]:
        """The counters of a node a second since `before`; empty without one."""
        if before is None or node not in before.nodes or self.at <= before.at:
            return {}
        seconds = self.at - before.at
        earlier = before.nodes[node]
        return {
            # A node that has restarted counts from 0 again.
            name: max(0, value - earlier.get(name, 0)) / seconds
            for name, value in self.nodes[node].items()
            if name not in GAUGES
        }

    def body(self, before: "Figures | None") -> dict[str, object]:
        """The figures for programs."""
        nodes = {
            node: {
                "figures": dict(figures),
                "per_second": {
                    name: round(value, 1) for name, value in self.rates(node, before).items()
                },
            }
            for node, figures in self.nodes.items()
        }
        return {"nodes": nodes, "incomplete": list(self.incomplete)}


def figures_of(answer: Mapping[str, Any], at: float) -> Figures:
    """The figures in an answer of `GET /nodes`."""
    nodes = {str(each["node"]): each.get("figures", {}) for each in answer.get("nodes", [])}
    return Figures(at, nodes, tuple(map(str, answer.get("incomplete") or ())))
