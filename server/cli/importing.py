"""`floorcast import`: copies a data folder into the configured Redis."""

import argparse
from collections.abc import Mapping

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
        data = DataImport(arguments.data, broker, Keys(settings.broker.prefix))
        await data.run(backend.presence, backend.notices)
    finally:
        await backend.notices.stop()
        await backend.presence.stop()
        await broker.stop()
    return data.counts
