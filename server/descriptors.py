"""Open files of this process: raises their limit, and notices when they run out."""

import contextlib
import errno
import logging
import os
import sys

from server.core.counters import Counters
from server.ports import Clock

if sys.platform != "win32":
    import resource

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 1.0


def raise_limit() -> None:
    """Raise the soft limit of open files, often 1,024, to the hard one: each client needs one."""
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class DescriptorWatch:
    """Logs and counts when no file can be opened, and clients are refused without an answer.

    Neither event loop reports it well: uvloop closes new connections in silence.
    """

    def __init__(self, counters: Counters, clock: Clock) -> None:
        self._counters = counters
        self._clock = clock
        self._check_at = clock.monotonic()
        self._are_exhausted = False

    def tick(self) -> None:
        """Check about once a second."""
        now = self._clock.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + _INTERVAL_SECONDS
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._counters.add("descriptors.exhausted")
            if not self._are_exhausted:
                logger.error("no file descriptors left: new connections are refused (ulimit -n)")
            self._are_exhausted = True
        else:
            if self._are_exhausted:
                logger.info("file descriptors are available again")
            self._are_exhausted = False
