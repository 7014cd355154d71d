"""What ends the work of a worker, or of all of them."""


class WorkersError(Exception):
    """Something is wrong with the workers; `code` is what the process ends with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class WorkerFailed(WorkersError):
    """A worker ended before it was ready, and this is what it said."""


class TooManyDeaths(WorkersError):
    """Workers die faster than it makes sense to replace them."""

    def __init__(self, deaths: int, seconds: float) -> None:
        super().__init__(f"{deaths} workers died within {seconds:g} s: giving up", 3)
