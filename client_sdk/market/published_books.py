"""The order books that this client publishes, to publish them again as a whole."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

_BOOK_PREFIX = "ORDERBOOK:"

_Levels = dict[Decimal, tuple[str, str]]


class PublishedBooks:
    """The books that began with a snapshot of this client, as the server accepted them.

    The server may lose a book, and then requires a snapshot before the next update.
    """

    def __init__(self) -> None:
        self._books: dict[str, dict[str, _Levels]] = {}

    def apply(self, topic: str, data: Mapping[str, object], kind: str) -> None:
        """Apply an accepted message; a no-op for other topics and unknown books."""
        if kind == "snapshot" and topic.startswith(_BOOK_PREFIX):
            self._books[topic] = {"bids": {}, "asks": {}}
        if topic in self._books:
            _apply(self._books[topic], data)

    def whole(self, topic: str, data: Mapping[str, object]) -> dict[str, object] | None:
        """The whole book after this update; None if the book is unknown."""
        known = self._books.get(topic)
        if known is None:
            return None
        book = {side: dict(levels) for side, levels in known.items()}
        _apply(book, data)
        return {side: list(levels.values()) for side, levels in book.items()}


def _apply(book: dict[str, _Levels], data: Mapping[str, object]) -> None:
    for side, levels in book.items():
        changes = data.get(side)
        for price, quantity in changes if isinstance(changes, list | tuple) else ():
            try:
                key = Decimal(str(price))
            except InvalidOperation:
                # The server refuses the message.
                continue
            if str(quantity).strip("0."):
                levels[key] = (str(price), str(quantity))
            else:
                levels.pop(key, None)
