"""Parses the command line and runs the command."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from client_sdk import __version__
from server.access import ConfigurationError
from server.cli import backup, check, contract, importing, serve, token


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command; return its exit code, 2 for a usage or configuration error."""
    parser = argparse.ArgumentParser(
        prog="floorcast",
        description="A realtime server: market data and shared sessions over Socket.IO.",
        epilog="Settings come from flags, then FLOORCAST_* variables, then --config FILE.",
    )
    parser.add_argument("--version", action="version", version=f"floorcast {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (serve, token, check, contract, backup, importing):
        module.add_to(commands)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments, os.environ if environ is None else environ)
    except ConfigurationError as error:
        print(f"floorcast: {error}", file=sys.stderr)
        return 2
    return code
