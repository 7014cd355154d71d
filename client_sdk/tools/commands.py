"""Lists the commands, and runs one with its errors as one line each."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from client_sdk.errors import FloorcastError
from client_sdk.tools import bench, inspect, publish, record, replay, tail, top
from client_sdk.tools.options import Commands, UsageError

Run = Callable[[argparse.Namespace, Mapping[str, str]], Coroutine[Any, Any, int]]


class Command(Protocol):
    """A module with one command."""

    def add_to(self, commands: Commands) -> None:
        """Add the command to the parser; its `run_tool` is the coroutine that runs it."""


COMMANDS: tuple[Command, ...] = (tail, top, publish, inspect, record, replay, bench)
NAMES = ("tail", "top", "publish", "inspect", "record", "replay", "bench")


def add_commands(commands: Commands) -> None:
    """Add all commands to a parser; each sets `run`, a plain function."""
    for command in COMMANDS:
        command.add_to(commands)
    for name in NAMES:
        commands.choices[name].set_defaults(run=run)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the parsed command; returns its exit status: 1 if it failed, 2 for a wrong usage."""
    call: Run = arguments.run_tool
    # What the client logs, the commands show in their own way.
    logging.getLogger("client_sdk").addHandler(logging.NullHandler())
    try:
        return asyncio.run(call(arguments, environ))
    except UsageError as error:
        print(f"floorcast: {error}", file=sys.stderr)
        return 2
    except FloorcastError as error:
        print(f"floorcast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C is how most of these commands end.
        return 130
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has what it wants.
        sys.stderr.close()
        return 0
