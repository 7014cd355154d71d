"""Writes numbers and ages for a narrow column."""

from datetime import datetime


def age_text(seconds: float | None) -> str:
    """An age: 40ms, 2.1s, 3m."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 60 else f"{seconds / 60:.0f}m"


def time_text(ts_ms: int) -> str:
    """A time of the day in the terminal's time zone, with milliseconds."""
    return datetime.fromtimestamp(ts_ms / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]


def change_style(before: str | None, now: str) -> str:
    """Green for a price that has risen, red for one that has fallen."""
    if before is None or before == now:
        return ""
    return "green" if float(now) > float(before) else "red"
