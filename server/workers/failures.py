"""The errors that end one worker, or all of them."""


class WorkersError(Exception):
    """The workers have failed; `code` is the exit code of the process."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class WorkerFailed(WorkersError):
    """A worker ended before it was ready."""


class TooManyDeaths(WorkersError):
    """Workers die too often to be replaced."""

    def __init__(self, deaths: int, seconds: float) -> None:
        super().__init__(f"{deaths} workers died within {seconds:g} s: giving up", 3)
