"""Decides which web pages may connect: those of our own origin, and those on the list."""

from collections.abc import Iterable

ANY = "*"


class OriginPolicy:
    """Browsers name the page's origin; programs send none and are judged by their token."""

    def __init__(self, allowed: Iterable[str]) -> None:
        names = frozenset(origin.rstrip("/").lower() for origin in allowed)
        self._any = ANY in names
        self._allowed = names

    def allows(self, origin: str | None, *, scheme: str, host: str | None) -> bool:
        """Whether a page of `origin` may talk to the server reached as `scheme://host`."""
        if origin is None or self._any:
            return True
        named = origin.lower()
        if named in self._allowed:
            return True
        return host is not None and named == f"{scheme}://{host}".lower()
