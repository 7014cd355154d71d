"""Tests that the documentation, the dashboard and the alerts name the metrics that exist."""

import json
import re
from pathlib import Path

import pytest

from server.metrics import METRICS, Metric

DOCS = Path(__file__).parent.parent.parent / "docs"
OPERATIONS = DOCS / "operations"
EXPOSED = {name for metric in METRICS for name in metric.exposed_names}
LABELS = {label for metric in METRICS for label in metric.labels} | {"worker", "le"}


def table() -> str:
    """The table of metrics, as in `docs/metrics.md`."""
    lines = ["| metric | type | labels | meaning | if it moves |", "|---|---|---|---|---|"]
    for each in METRICS:
        labels = " ".join(f"`{label}`" for label in each.labels)
        lines.append(f"| `{each.name}` | {each.kind} | {labels} | {each.meaning} | {each.action} |")
    return "\n".join(lines) + "\n"


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bfloorcast_[a-z0-9_]+\b", text))


def test_documentation_lists_the_metrics() -> None:
    documented = (DOCS / "metrics.md").read_text()
    assert documented.endswith(table()), "regenerate the table: python -m tests.metrics.test_docs"


@pytest.mark.parametrize("metric", METRICS, ids=lambda each: each.name)
def test_name_says_the_part_the_subject_and_the_unit(metric: Metric) -> None:
    name = metric.name
    assert re.fullmatch(r"floorcast_[a-z]+(_[a-z]+)+", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    assert name.endswith("_seconds") or metric.kind != "histogram"


def test_every_metric_of_a_query_exists() -> None:
    examples = (DOCS / "metrics.md").read_text().partition("| metric |")[0]
    for text in (examples, *(path.read_text() for path in OPERATIONS.iterdir())):
        named = names_in(text)
        assert named
        assert named <= EXPOSED


def test_dashboard_queries_group_by_labels_that_exist() -> None:
    dashboard = json.loads((OPERATIONS / "grafana.json").read_text())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    assert len(queries) > 20
    for query in queries:
        for group in re.findall(r"by \(([^)]*)\)", query):
            assert {each.strip() for each in group.split(",")} <= LABELS, query


def test_every_alarm_is_explained() -> None:
    alarms = re.findall(r"alert: (\w+)", (OPERATIONS / "alerts.yml").read_text())
    assert len(alarms) == len(set(alarms)) == 10
    explained = (DOCS / "operations.md").read_text()
    assert all(f"`{alarm}`" in explained for alarm in alarms)


if __name__ == "__main__":
    head = (DOCS / "metrics.md").read_text().partition("| metric |")[0]
    (DOCS / "metrics.md").write_text(head + table())
