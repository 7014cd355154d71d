"""The command `floorcast`, which can be imported without the packages of the server."""

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from typing import Any

from floorcast.extras import MissingServer, require_server

# They need the packages of the server, and no client.
_SERVER_COMMANDS = frozenset(
    ("serve", "worker", "init", "token", "check", "contract", "backup", "import", "export")
)


# As a shell reports a program that was ended by SIGPIPE.
_NOBODY_READS = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 if it needs the server, which is not installed."""
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # `floorcast check | head` has read enough. The interpreter flushes again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    return code


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    command = next((each for each in words if not each.startswith("-")), None)
    try:
        require_server()
    except MissingServer as error:
        return _run_without_server(words, command, str(error))
    # The collector would walk what is imported again and again: a fifth of the time to start.
    gc.disable()
    from server.cli import main as run

    gc.freeze()
    gc.enable()
    if command in _SERVER_COMMANDS:
        # The client takes time to import, and a server starts without it.
        return run(words)
    return run(words, add_more=_add_more)


def full_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    from server.cli.main import build_parser

    return build_parser(_add_more)


def _add_more(commands: Any) -> None:
    from client_sdk import tools
    from floorcast import completion

    tools.add_commands(commands)
    completion.add_to(commands)


def _run_without_server(words: Sequence[str], command: str | None, missing: str) -> int:
    from client_sdk import __version__, tools

    if command not in tools.NAMES and words[:1] != ["--version"]:
        print(f"floorcast: {missing}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="floorcast")
    parser.add_argument("--version", action="version", version=f"floorcast {__version__}")
    tools.add_commands(parser.add_subparsers(metavar="COMMAND"))
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments, os.environ)
    return code
