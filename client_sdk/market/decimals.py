"""Numbers where a stream wants a decimal become text, digit by digit."""

from collections.abc import Callable, Mapping
from decimal import Decimal

from client_sdk.contract import Stream

_FIELDS: Mapping[Stream, tuple[str, ...]] = {
    Stream.PRICE: ("bid", "ask", "last", "volume"),
    Stream.ORDER_UPDATES: ("price", "qty", "filled"),
}
_TRADE_FIELDS = ("price", "qty")


def with_decimal_text(topic: str, data: Mapping[str, object]) -> Mapping[str, object]:
    """The data with decimals as text: `0.1` becomes "0.1", and `Decimal("1.50")` "1.50"."""
    stream = topic.partition(":")[0]
    if stream == Stream.ORDERBOOK.value:
        return _mapped(data, ("bids", "asks"), _levels)
    if stream == Stream.TRADES.value:
        return _mapped(data, ("trades",), _trades)
    for each, fields in _FIELDS.items():
        if stream == each.value:
            return _mapped(data, fields, _text)
    return data


def _mapped(
    data: Mapping[str, object], fields: tuple[str, ...], change: Callable[[object], object]
) -> Mapping[str, object]:
    return {name: change(value) if name in fields else value for name, value in data.items()}


def _text(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    # The shortest digits that give this float; `format` writes no exponent.
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    # What is no number is left to the check of the encoder.
    return format(number, "f") if number.is_finite() else value


def _levels(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    return [
        [_text(each) for each in level] if isinstance(level, list | tuple) else level
        for level in value
    ]


def _trades(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    return [
        _mapped(each, _TRADE_FIELDS, _text) if isinstance(each, Mapping) else each for each in value
    ]
