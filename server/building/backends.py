"""Builds the backend that the settings name: in memory, in a file, or in Redis."""

import secrets
from pathlib import Path

from server.access import ConfigurationError
from server.brokers import (
    BrokerError,
    FileBroker,
    FileHandover,
    FileKeptValues,
    FileNoticeStore,
    FilePresence,
    FileStore,
    MemoryBroker,
    MemoryCluster,
    MemoryHandover,
    MemoryHookQueue,
    MemoryKeptValues,
    MemoryNoticeStore,
    MemoryOccupancy,
    MemoryPresence,
    file_occupancy,
    is_installed,
    open_backend,
)
from server.configs import (
    file_config,
    memory_config,
    notices,
    occupancy_config,
    session_rules,
)
from server.core.counters import Counters
from server.ports import (
    ApplicationBackend,
    Backend,
    BackendOptions,
    Clock,
    HookQueue,
    Occupancy,
)
from server.settings import Settings
from server.tasks import TaskOwner


def build_backend(
    settings: Settings,
    clock: Clock,
    counters: Counters,
    tasks: TaskOwner,
    own: ApplicationBackend | None,
) -> Backend:
    """The application's own backend, or the one that `broker.url` names.

    Raises `ConfigurationError` if an installed backend cannot be opened.
    """
    rules, pending_notices = session_rules(settings), notices(settings)
    url = settings.broker.url.get_secret_value()
    if own is None and is_installed(url):
        try:
            own = open_backend(BackendOptions(url, settings.broker.prefix, clock))
        except BrokerError as error:
            raise ConfigurationError(f"broker.url: {error}") from error
    if own is not None:
        return Backend(
            own.broker,
            own.presence or MemoryPresence(clock, rules),
            own.notices or MemoryNoticeStore(clock, pending_notices),
            own.handover or MemoryHandover(),
            own.kept or MemoryKeptValues(clock),
            own.cluster or MemoryCluster(),
            *_occupancy_of(settings, clock, counters, own),
            own.shared_limits,
        )
    if settings.broker.url.in_memory:
        return Backend(
            MemoryBroker(clock, epoch=secrets.token_hex(4), config=memory_config(settings)),
            MemoryPresence(clock, rules),
            MemoryNoticeStore(clock, pending_notices),
            MemoryHandover(),
            MemoryKeptValues(clock),
            MemoryCluster(),
            *_memory_occupancy(settings, clock, counters),
        )
    if settings.broker.url.folder is not None:
        return _build_file_backend(settings, settings.broker.url.folder, clock, counters, tasks)
    # Redis's driver takes a tenth of a second to import.
    from server.building.redis_backend import build_redis_backend

    return build_redis_backend(settings, clock, counters, tasks)


def _occupancy_of(
    settings: Settings, clock: Clock, counters: Counters, own: ApplicationBackend
) -> tuple[Occupancy, HookQueue]:
    if own.occupancy is not None and own.hook_queue is not None:
        return own.occupancy, own.hook_queue
    return _memory_occupancy(settings, clock, counters)


def _memory_occupancy(
    settings: Settings, clock: Clock, counters: Counters
) -> tuple[MemoryOccupancy, MemoryHookQueue]:
    config = occupancy_config(settings)
    queue = MemoryHookQueue(clock, config, counters)
    return MemoryOccupancy(clock, config, queue), queue


def _build_file_backend(
    settings: Settings, folder: Path, clock: Clock, counters: Counters, tasks: TaskOwner
) -> Backend:
    store = FileStore(file_config(settings, folder), counters)
    keep_seconds = settings.session.notice_seconds
    return Backend(
        FileBroker(clock, store, tasks, config=memory_config(settings)),
        FilePresence(
            clock,
            session_rules(settings),
            store,
            resume_seconds=settings.recovery.window_seconds,
        ),
        FileNoticeStore(clock, store, notices(settings), keep_seconds=keep_seconds),
        FileHandover(clock, store, window_seconds=settings.recovery.window_seconds),
        FileKeptValues(clock, store),
        MemoryCluster(),
        *file_occupancy(clock, store, occupancy_config(settings), counters),
        is_resumed_by_next_run=True,
    )
