"""The backend for one process that survives it: memory, with a journal in one SQLite file."""

from server.brokers.file.broker import FileBroker
from server.brokers.file.handover import FileHandover
from server.brokers.file.kept import FileKeptValues
from server.brokers.file.notices import FileNoticeStore
from server.brokers.file.occupancy import file_occupancy
from server.brokers.file.presence import FilePresence
from server.brokers.file.repair import back_up, check_file, repair_file
from server.brokers.file.store import FileConfig, FileStore, SyncMode

__all__ = [
    "FileBroker",
    "FileConfig",
    "FileHandover",
    "FileKeptValues",
    "FileNoticeStore",
    "FilePresence",
    "FileStore",
    "SyncMode",
    "back_up",
    "check_file",
    "file_occupancy",
    "repair_file",
]
