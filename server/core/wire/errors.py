"""The root of the errors for malformed client input; each ends the connection."""


class WireError(Exception):
    """Malformed bytes; `reason` contains none of them and is safe to log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
