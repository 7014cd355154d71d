"""Shows on a terminal how far a long command has come."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from client_sdk.tools.options import UsageError
from client_sdk.tools.terminal import console

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Progress:
    """A bar on the error output; nothing if that is no terminal, or rich is not installed."""

    def __init__(self, what: str, total: float | None) -> None:
        self._what = what
        self._total = total
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            try:
                terminal = console(stderr=True)
            except UsageError:
                return self
            from rich.progress import Progress as Bar

            self._bar = Bar(console=terminal, transient=True)
            self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def advance(self, steps: float = 1) -> None:
        """Count steps that are done."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], steps)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
