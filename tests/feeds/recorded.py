"""Builds recordings for tests."""

import json
from pathlib import Path


def line(ts: object, **fields: object) -> str:
    """One line of a recording; `fields` override the defaults."""
    return json.dumps({"ts": ts, "topic": "PRICE:A", "data": {"n": ts}} | fields)


def recording(folder: Path, *lines: str) -> str:
    """Write a recording; return its path."""
    path = folder / "recorded.jsonl"
    path.write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return str(path)
