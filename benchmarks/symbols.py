"""Who listens to which symbol, and how a message carries the moment at which it was published."""

import random

# What stands before a stamp, with every peer; heartbeats carry no volume, and are not counted.
_MARKER = b'"volume":"'
_MOMENT_DIGITS, _INDEX_DIGITS = 20, 3
_STAMP_BYTES = _MOMENT_DIGITS + 1 + _INDEX_DIGITS


def symbol(index: int) -> str:
    """The name of a symbol by its number."""
    return f"S{index:03d}"


def stamp(moment_ns: int, index: int) -> str:
    """When and for which symbol, as a decimal of fixed width: it needs no JSON to be read."""
    return f"{moment_ns:0{_MOMENT_DIGITS}d}.{index:0{_INDEX_DIGITS}d}"


def split_stamps(data: bytes) -> tuple[list[bytes], bytes]:
    """What begins with a stamp, piece by piece, and the end that is to stand before the next read.

    Nothing in that end is found again then, and nothing that a read has split is missed.
    """
    pieces = data.split(_MARKER)
    last = pieces[-1]
    if len(pieces) > 1 and len(last) < _STAMP_BYTES:
        return pieces[1:-1], _MARKER + last
    return pieces[1:], data[-len(_MARKER) + 1 :]


def count_stamps(data: bytes) -> tuple[int, bytes]:
    """The same for who only wants to know how many."""
    return data.count(_MARKER), data[-len(_MARKER) + 1 :]


def moment_of(piece: bytes) -> int:
    """The nanoseconds of the stamp that the piece begins with."""
    return int(piece[:_MOMENT_DIGITS])


def index_of(piece: bytes) -> int:
    """Its symbol."""
    return int(piece[_MOMENT_DIGITS + 1 : _STAMP_BYTES])


def assign_symbols(clients: int, each: int, symbols: int) -> list[list[int]]:
    """Symbols for every client, always the same ones, dealt like cards.

    No two clients need have the same hand, and where `each` divides `symbols`, and the clients
    use up whole decks, every symbol has equally many listeners.
    """
    dealer = random.Random(2024)
    hands: list[list[int]] = []
    while len(hands) < clients:
        deck = list(range(symbols))
        dealer.shuffle(deck)
        hands += [deck[at : at + each] for at in range(0, symbols - each + 1, each)]
    return hands[:clients]
