"""Numbers of a source become exact texts."""

from decimal import Decimal

import pytest

from server.feeds.numbers import Number, decimal_text


@pytest.mark.parametrize(
    ("number", "tick", "text"),
    [
        (0.1, None, "0.1"),
        (1e-7, None, "0.0000001"),
        (Decimal("1.50"), None, "1.50"),
        (3, None, "3"),
        ("1.50", None, "1.50"),
        (64250.1, "0.01", "64250.10"),
        (0.30000000000000004, "0.01", "0.30"),
        ("1.5", "0.010", "1.50"),
        (1234.0, "0.5", "1234.0"),
        (1225.0, "25", "1225"),
    ],
)
def test_number_is_written_exactly(number: Number, tick: str | None, text: str) -> None:
    assert decimal_text(number, tick) == text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), Decimal("-Infinity")])
def test_what_is_no_number_is_refused(number: Number) -> None:
    with pytest.raises(ValueError, match="is no number"):
        decimal_text(number)
