"""`floorcast check`: validates a configuration, or a data folder, without running it."""

import argparse
import sys
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path

from server.access import ConfigurationError
from server.app import create_app
from server.brokers import BrokerError, check_file, repair_file
from server.cli.hints import find_hints
from server.cli.sources import Commands, add_config, add_data, settings_from
from server.configs import check_workers
from server.settings import setting_names


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check",
        help="validate a configuration or a data folder",
        description=(
            "Print the settings that would be in force, secrets hidden, or what is wrong. "
            "Hints about what is likely not meant are on stderr. "
            "With --data, read the whole data file instead; its server must be stopped."
        ),
    )
    add_data(parser, required=False, what="check the data file in this folder")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="with --data, keep what is readable in a new data file; the old one stays beside it",
    )
    add_config(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.data is not None:
        return _check_data(arguments.data, repair=arguments.repair)
    settings = settings_from(arguments, environ)
    # Building the app, without running it, reports the same errors as `serve`.
    check_workers(settings)
    create_app(settings)
    for name in setting_names():
        print(f"{name} = {attrgetter(name)(settings)}")
    for feed, options in settings.feed_options.items():
        for name in options:
            # Only the feed knows which of its options are secret.
            print(f"feed.{feed}.{name} = (set)")
    for hint in find_hints(settings):
        print(f"hint: {hint}", file=sys.stderr)
    return 0


def _check_data(folder: Path, *, repair: bool) -> int:
    try:
        if repair:
            rows, old = repair_file(folder)
            print(f"kept in a new data file; the old one is {old}")
        else:
            rows = check_file(folder)
    except BrokerError as error:
        raise ConfigurationError(str(error)) from None
    for table, count in rows.items():
        print(f"{table} = {count}")
    return 0
