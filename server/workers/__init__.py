"""Workers: several server processes at one address, run by a supervisor."""

from server.workers.control import WorkerSpec
from server.workers.failures import WorkersError
from server.workers.process import Launcher
from server.workers.running import open_listeners, supervise
from server.workers.working import work

__all__ = ["Launcher", "WorkerSpec", "WorkersError", "open_listeners", "supervise", "work"]
