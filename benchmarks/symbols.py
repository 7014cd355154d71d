"""Assign symbols to clients, and stamp messages with their publish time."""

import random
import re

# Precedes a stamp with every peer; heartbeats have no volume and are not counted.
_MARKER = b'"volume":"'
_MOMENT_DIGITS, _INDEX_DIGITS = 20, 4
_STAMP_BYTES = _MOMENT_DIGITS + 1 + _INDEX_DIGITS
# The number of updates that one conflated update replaces. A number split between two reads is
# missed, which is rare: a client that is so slow gets many updates per read.
_MERGED = re.compile(rb'"merged":(\d+)')


def symbol(index: int) -> str:
    """The name of a symbol."""
    return f"S{index:03d}"


def stamp(moment_ns: int, index: int) -> str:
    """The publish time and symbol as a decimal of fixed width, readable without JSON."""
    return f"{moment_ns:0{_MOMENT_DIGITS}d}.{index:0{_INDEX_DIGITS}d}"


def split_stamps(data: bytes) -> tuple[list[bytes], bytes]:
    """The pieces of data that start with a stamp, and the tail to prepend to the next read.

    The tail repeats no found stamp, and a stamp split between two reads is found.
    """
    pieces = data.split(_MARKER)
    last = pieces[-1]
    if len(pieces) > 1 and len(last) < _STAMP_BYTES:
        return pieces[1:-1], _MARKER + last
    return pieces[1:], data[-len(_MARKER) + 1 :]


def count_stamps(data: bytes) -> tuple[int, bytes]:
    """The number of stamps, and the tail to prepend to the next read."""
    return data.count(_MARKER), data[-len(_MARKER) + 1 :]


def count_merged(data: bytes) -> int:
    """The number of updates that others in this data replace."""
    if b'"merged":' not in data:
        return 0
    return sum(int(found) - 1 for found in _MERGED.findall(data))


def moment_of(piece: bytes) -> int:
    """The publish time in nanoseconds of a piece."""
    return int(piece[:_MOMENT_DIGITS])


def index_of(piece: bytes) -> int:
    """The symbol number of a piece."""
    return int(piece[_MOMENT_DIGITS + 1 : _STAMP_BYTES])


def assign_symbols(clients: int, each: int, symbols: int) -> list[list[int]]:
    """Assign `each` symbols to every client, from shuffled lists with a fixed seed.

    If `each` divides `symbols` and the clients use whole lists, every symbol has equally many
    subscribers.
    """
    dealer = random.Random(2024)
    hands: list[list[int]] = []
    while len(hands) < clients:
        deck = list(range(symbols))
        dealer.shuffle(deck)
        hands += [deck[at : at + each] for at in range(0, symbols - each + 1, each)]
    return hands[:clients]
