"""The entry point of a worker process, started by `serve --workers`."""

import os
import sys

from server.cli.logs import log_to_stderr
from server.cli.loops import run_loop
from server.workers import work

if __name__ == "__main__":
    log_to_stderr(f"[{os.getpid()}] ")
    sys.exit(run_loop(work(*map(int, sys.argv[1:]))))
