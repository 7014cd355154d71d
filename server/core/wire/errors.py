"""The root of what can be wrong with a client's bytes; each ends the connection."""


class WireError(Exception):
    """Bytes that make no sense; `reason` is safe to log, for it holds none of them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
