"""Gives the commands their terminal: rich, which the client itself does not need."""

import sys
from typing import TYPE_CHECKING

from client_sdk.tools.options import UsageError

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> "Console":
    """The terminal; raises `UsageError` if rich is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        raise UsageError(
            "a live screen needs the package rich: pip install 'floorcast[tools]', or use --json"
        ) from None
    return Console(highlight=False, stderr=stderr)


def is_interactive() -> bool:
    """Whether a person looks at the output."""
    return sys.stdout.isatty()
