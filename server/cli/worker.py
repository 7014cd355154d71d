"""The entry point of a worker process, started by `serve --workers`."""

import os
import sys
from collections.abc import Sequence

from server.cli.logs import log_to_stderr
from server.cli.loops import run_loop
from server.settings import LogSettings
from server.workers import work


def command(log: LogSettings) -> Sequence[str]:
    """The command of a worker: it imports from where this process does, whatever its folder.

    `-P` keeps the working directory off the path until then: a folder `server` there would hide
    ours.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from server.cli.worker import main; main()"
    return [sys.executable, "-P", "-c", code, log.model_dump_json()]


def main() -> None:
    """Run the worker; the arguments end with its two file descriptors."""
    log, *descriptors = sys.argv[1:]
    log_to_stderr(LogSettings.model_validate_json(log), prefix=f"[{os.getpid()}] ")
    sys.exit(run_loop(work(*map(int, descriptors))))
