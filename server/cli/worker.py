"""The entry point of a worker process, started by `serve --workers`."""

import os
import sys

from server.cli.logs import log_to_stderr
from server.cli.loops import run_loop
from server.settings import LogSettings
from server.workers import work

if __name__ == "__main__":
    log, *descriptors = sys.argv[1:]
    log_to_stderr(LogSettings.model_validate_json(log), prefix=f"[{os.getpid()}] ")
    sys.exit(run_loop(work(*map(int, descriptors))))
