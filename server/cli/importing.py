"""`floorcast import` and `export`: copy a data folder into the configured Redis, and back."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from server.access import ConfigurationError
from server.brokers import BrokerError
from server.building import build_backend
from server.cli.loops import run_loop
from server.cli.sources import Commands, add_config, add_data, settings_from
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.ports import ignore
from server.server import SystemClock
from server.settings import Settings
from server.tasks import TaskOwner


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "import",
        help="copy a data folder into Redis",
        description=(
            "Copy the data file of a stopped server into the Redis that broker.url names, with all "
            "positions and ids. What Redis has already stays as it is."
        ),
    )
    add_data(parser, required=True, what="the folder of the stopped server")
    add_config(parser)
    parser.set_defaults(run=_run)

    parser = commands.add_parser(
        "export",
        help="copy a Redis into a data folder",
        description=(
            "Copy all that stopped servers left in the Redis that broker.url names into a new data "
            "folder, with all positions and ids."
        ),
    )
    add_data(parser, required=True, what="the new folder")
    add_config(parser)
    parser.set_defaults(run=_run_export)


def _run_export(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = settings_from(arguments, environ)
    try:
        counts = run_loop(_export(settings, arguments.data))
    except (BrokerError, FloorcastError) as error:
        raise ConfigurationError(str(error)) from None
    for name, count in counts.items():
        print(f"{name} = {count}")
    return 0


async def _export(settings: Settings, folder: Path) -> Mapping[str, int]:
    counters = Counters()
    backend = build_backend(settings, SystemClock(), counters, TaskOwner(counters), None)
    from server.brokers import DataExport, Keys, RedisBroker

    broker, config = backend.broker, settings.broker
    if not isinstance(broker, RedisBroker):
        raise ConfigurationError("broker.url: export needs a Redis to copy from")
    if not config.url.can_replicate:
        raise ConfigurationError("broker.url: export cannot read a Cluster, only a single Redis")
    await broker.start(ignore)
    try:
        data = DataExport(
            broker,
            Keys(config.prefix),
            config.prefix,
            window_seconds=settings.recovery.window_seconds,
            on_progress=_show,
        )
        await data.run(folder)
    finally:
        await broker.stop()
    return data.counts


def _show(counts: Mapping[str, int]) -> None:
    """Show the progress to a person."""
    if sys.stderr.isatty():
        shown = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"copied so far: {shown}", file=sys.stderr)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = settings_from(arguments, environ)
    try:
        counts = run_loop(_import(settings, arguments))
    except (BrokerError, FloorcastError) as error:
        raise ConfigurationError(str(error)) from None
    for name, count in counts.items():
        print(f"{name} = {count}")
    return 0


async def _import(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, int]:
    counters = Counters()
    backend = build_backend(settings, SystemClock(), counters, TaskOwner(counters), None)
    # The other commands need no driver for Redis.
    from server.brokers import DataImport, Keys, RedisBroker

    broker = backend.broker
    if not isinstance(broker, RedisBroker):
        raise ConfigurationError("broker.url: import needs a Redis to copy to")
    await broker.start(ignore)
    try:
        await backend.presence.start(ignore)
        await backend.notices.start(lambda notice, critical: 0)
        data = DataImport(arguments.data, broker, Keys(settings.broker.prefix), on_progress=_show)
        await data.run(backend.presence, backend.notices)
    finally:
        await backend.notices.stop()
        await backend.presence.stop()
        await broker.stop()
    return data.counts
