"""Writes recordings for tests."""

import json
from pathlib import Path


def line(ts: object, **fields: object) -> str:
    """One line of a recording; `fields` may overwrite what is usual."""
    return json.dumps({"ts": ts, "topic": "PRICE:A", "data": {"n": ts}} | fields)


def recording(folder: Path, *lines: str) -> str:
    """A file of these lines."""
    path = folder / "recorded.jsonl"
    path.write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return str(path)
