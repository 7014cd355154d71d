"""Checks the Origin header: pages of our own origin and of the allow list may connect."""

from collections.abc import Iterable

ANY = "*"


class OriginPolicy:
    """The allowed origins. Browsers send an Origin header; other programs need only a token."""

    def __init__(self, allowed: Iterable[str]) -> None:
        names = frozenset(origin.rstrip("/").lower() for origin in allowed)
        self._any = ANY in names
        self._allowed = names

    def allows(self, origin: str | None, *, scheme: str, host: str | None) -> bool:
        """Whether a page of `origin` may connect to the server at `scheme://host`."""
        if origin is None or self._any:
            return True
        named = origin.lower()
        if named in self._allowed:
            return True
        return host is not None and named == f"{scheme}://{host}".lower()
