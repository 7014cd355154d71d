"""`floorcast top`: the figures of all nodes, live."""

import argparse
import asyncio
import json
import time
from collections.abc import Mapping

from client_sdk.contract import Scope
from client_sdk.errors import FloorcastError, is_retryable
from client_sdk.tools.api import Api, path
from client_sdk.tools.figures import Figures, figures_of
from client_sdk.tools.options import (
    Commands,
    add_curl,
    add_json,
    add_target,
    count,
    curl,
    positive,
    target_of,
)
from client_sdk.tools.terminal import console, is_interactive


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "top",
        help="show the server's figures live",
        description=(
            "Show connections, messages a second, slow clients and refusals of each node, live. "
            "Needs the scope admin."
        ),
    )
    parser.add_argument(
        "--interval", type=positive, default=1.0, metavar="SECONDS", help="default 1"
    )
    parser.add_argument("--count", type=count, help="stop after so many rounds")
    add_target(parser)
    add_json(parser, "each round")
    add_curl(parser)
    parser.set_defaults(run_tool=_run)


async def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    target = target_of(arguments, environ)
    where = path("nodes")
    if arguments.curl:
        print(curl("GET", target.url + where, with_token=True))
        return 0
    target.require_token(Scope.ADMIN)
    async with Api(target) as api:
        if arguments.json or not is_interactive():
            await _print_rounds(api, where, arguments)
        else:
            await _draw(api, where, arguments)
    return 0


async def _print_rounds(api: Api, where: str, arguments: argparse.Namespace) -> None:
    rounds = 0
    before: Figures | None = None
    while True:
        now = figures_of(await api.get(where), time.monotonic())
        print(json.dumps(now.body(before)), flush=True)
        before = now
        rounds += 1
        if rounds == arguments.count:
            return
        await asyncio.sleep(arguments.interval)


async def _draw(api: Api, where: str, arguments: argparse.Namespace) -> None:
    terminal = console()
    # Both need rich.
    from rich.live import Live

    from client_sdk.tools.figures_table import figures_table

    rounds = 0
    before: Figures | None = None
    now: Figures | None = None
    problem = ""
    with Live(console=terminal, screen=arguments.count is None, auto_refresh=False) as live:
        while True:
            try:
                before, now = now, figures_of(await api.get(where), time.monotonic())
                problem = ""
            except FloorcastError as error:
                # A restart of the server must not end the screen.
                if now is None or not is_retryable(error):
                    raise
                problem = str(error)
            live.update(figures_table(now, before, problem), refresh=True)
            rounds += 1
            if rounds == arguments.count:
                return
            await asyncio.sleep(arguments.interval)
