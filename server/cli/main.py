"""Parses the command line and runs the command."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from client_sdk import __version__
from server.access import ConfigurationError
from server.cli import backup, check, contract, importing, init, serve, token
from server.cli.sources import Commands
from server.compiled import IS_COMPILED

_MODULES = (serve, init, token, check, contract, backup, importing)
AddMore = Callable[[Commands], None]


def build_parser(add_more: AddMore | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; `add_more` adds those of other packages."""
    parser = argparse.ArgumentParser(
        prog="floorcast",
        description="A realtime server: market data and shared sessions over Socket.IO.",
        epilog="Settings come from flags, then FLOORCAST_* variables, then --config FILE.",
    )
    version = f"floorcast {__version__}{', compiled' if IS_COMPILED else ''}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in _MODULES:
        module.add_to(commands)
    if add_more is not None:
        add_more(commands)
    return parser


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    add_more: AddMore | None = None,
) -> int:
    """Run one command; return its exit code, 2 for a usage or configuration error.

    Without a command it prints the help.
    """
    parser = build_parser(add_more)
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        code: int = arguments.run(arguments, os.environ if environ is None else environ)
    except ConfigurationError as error:
        print(f"floorcast: {error}", file=sys.stderr)
        return 2
    return code
