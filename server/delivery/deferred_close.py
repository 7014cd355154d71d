"""Closes connections after the current delivery, never during it."""

from server.core.errors import FloorcastError
from server.ports import Link


class DeferredClose:
    """Closing one connection can close others, or trigger events for them.

    A failed write is found while an event goes to many clients. Closing at once would change the
    collection being iterated, and some clients would receive the resulting events before that
    one. So deliver inside `with`: the connections close when the outermost block ends.
    """

    __slots__ = ("_depth", "_pending")

    def __init__(self) -> None:
        self._depth = 0
        # Links to abort (None), and links to disconnect with an error.
        self._pending: dict[Link, FloorcastError | None] = {}

    def __contains__(self, link: Link) -> bool:
        """Whether the link is about to close; write nothing more to it."""
        return link in self._pending

    def abort(self, link: Link) -> None:
        """Close a link after a failed write."""
        self._add(link, None)

    def disconnect(self, link: Link, error: FloorcastError) -> None:
        """Close a link with an error that lets the client reconnect."""
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
