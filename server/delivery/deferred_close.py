"""Ends connections when nobody is in the middle of going through them."""

from server.core.errors import FloorcastError
from server.ports import Link


class DeferredClose:
    """Whoever goes takes others along, or is the cause that something is said to them.

    A write that fails is found while a message is being brought to many. Ended at once, a
    connection would change what is gone through, and the news of it would come to some before
    the message and to others after it. So the work is done in a `with`, and they end behind it.
    """

    __slots__ = ("_depth", "_pending")

    def __init__(self) -> None:
        self._depth = 0
        # Those whose way is broken, and those who are told why they have to go.
        self._pending: dict[Link, FloorcastError | None] = {}

    def __contains__(self, link: Link) -> bool:
        """Whether it is to end as soon as the work is done: it is written nothing more."""
        return link in self._pending

    def abort(self, link: Link) -> None:
        """A write to it failed."""
        self._add(link, None)

    def disconnect(self, link: Link, error: FloorcastError) -> None:
        """It may come back."""
        self._add(link, error)

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *raised: object) -> None:
        try:
            if self._depth == 1:
                self._close_all()
        finally:
            self._depth -= 1

    def _add(self, link: Link, error: FloorcastError | None) -> None:
        with self:
            self._pending.setdefault(link, error)

    def _close_all(self) -> None:
        while self._pending:
            link = next(iter(self._pending))
            error = self._pending.pop(link)
            if error is None:
                link.abort("a write failed")
            else:
                link.disconnect(error, reconnect=True)
