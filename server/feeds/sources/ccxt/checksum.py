"""Computes the checksums that venues send with their books."""

import zlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

# Of each side; a checksum says nothing about further ones.
LEVELS = 10


def kraken_checksum(
    bids: Iterable[Sequence[Any]],
    asks: Iterable[Sequence[Any]],
    *,
    price_decimals: int,
    quantity_decimals: int,
) -> int:
    """The CRC32 over the ten best levels of each side, asks first, as Kraken defines it.

    A number counts as its digits with all decimals of the pair, without point and leading zeros.
    """
    digits = "".join(
        _digits(price, price_decimals) + _digits(quantity, quantity_decimals)
        for side in (asks, bids)
        for price, quantity, *_ in side
    )
    return zlib.crc32(digits.encode())


def _digits(number: Any, decimals: int) -> str:
    return str(int(Decimal(str(number)).scaleb(decimals)))
