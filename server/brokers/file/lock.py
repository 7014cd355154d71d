"""The lock of a data folder: one process at a time."""

import fcntl
import os
from pathlib import Path

from server.brokers.errors import BrokerError

LOCK_NAME = "floorcast.lock"


class FolderLock:
    """Held until `release` or the end of the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Lock the folder; raises `BrokerError` if another process has it, or it is unusable."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BrokerError(
                f"cannot write to {self._path.parent}: {error.strerror}; "
                "the folder must belong to the user that runs the server"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise BrokerError(
                f"{self._path.parent} is in use by process {holder}: a data folder belongs to one "
                "process, several need a Redis"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Unlock the folder; a no-op if it is not locked."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
