"""Turns a source's numbers into the exact decimal texts that clients get."""

from decimal import ROUND_HALF_EVEN, Decimal

Number = str | int | float | Decimal


def decimal_text(number: Number, tick_size: str | None = None) -> str:
    """A number without an exponent; a float by its shortest digits.

    With a `tick_size` it has as many decimals as that, such as two for "0.01". Raises `ValueError`
    for what is no finite number.
    """
    if isinstance(number, str) and tick_size is None:
        return number
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    if not exact.is_finite():
        raise ValueError(f"{number!r} is no number")
    if tick_size is not None:
        step = Decimal(tick_size)
        # A tick such as 0.5 or 25 says how prices step, not only how many digits they have.
        exponent = min(0, int(step.normalize().as_tuple().exponent))
        exact = exact.quantize(Decimal(1).scaleb(exponent), rounding=ROUND_HALF_EVEN)
    return format(exact, "f")
