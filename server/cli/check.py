"""`floorcast check`: validates a configuration without running it."""

import argparse
from collections.abc import Mapping

from server.app import create_app
from server.cli.sources import Commands, add_config, settings_from
from server.configs import check_workers


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check",
        help="validate a configuration",
        description="Print the settings that would be in force, secrets hidden, or what is wrong.",
    )
    add_config(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = settings_from(arguments, environ)
    # Building the app, without running it, reports the same errors as `serve`.
    check_workers(settings)
    create_app(settings)
    for section, values in settings:
        for name, value in values:
            print(f"{section}.{name} = {value}")
    return 0
