"""`floorcast backup`: copies a data file, also while its server runs."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from server.access import ConfigurationError
from server.brokers import BrokerError, back_up
from server.cli.sources import Commands, add_data


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "backup",
        help="copy a data file",
        description=(
            "Copy the data file of a running or stopped server. To use the copy, put it into an "
            "empty folder as floorcast.db."
        ),
    )
    add_data(parser, required=True, what="the folder of the server")
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write the copy")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    try:
        size = back_up(arguments.data, arguments.file)
    except BrokerError as error:
        raise ConfigurationError(str(error)) from None
    print(f"{arguments.file}: {size} bytes")
    return 0
