"""`floorcast inspect`: shows what the server knows of a user, a topic or a connection."""

import argparse
import json
from collections.abc import Mapping

from client_sdk.contract import Scope
from client_sdk.tools.api import Api, path
from client_sdk.tools.options import (
    Commands,
    add_curl,
    add_json,
    add_target,
    curl,
    target_of,
)
from client_sdk.tools.terminal import console

_PATHS = {"user": "users", "topic": "topics", "connection": "connections"}


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "inspect",
        help="show a user, a topic or a connection",
        description=(
            "Show what the server knows, over all nodes: a user's connections, sessions and "
            "topics; a topic's position and subscribers; a connection's subscriptions, lag and "
            "waiting bytes. Users and connections need the scope admin, topics market:read."
        ),
    )
    parser.add_argument("kind", choices=tuple(_PATHS))
    parser.add_argument("id", help="a user's id, a topic's name, or a connection's id")
    add_target(parser)
    add_json(parser, "the answer")
    add_curl(parser)
    parser.set_defaults(run_tool=_run)


async def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    target = target_of(arguments, environ)
    where = path(_PATHS[arguments.kind], arguments.id)
    if arguments.curl:
        print(curl("GET", target.url + where, with_token=True))
        return 0
    target.require_token(Scope.MARKET_READ if arguments.kind == "topic" else Scope.ADMIN)
    async with Api(target) as api:
        answer = await api.get(where)
    if arguments.json:
        print(json.dumps(answer))
    else:
        terminal = console()
        # Needs rich.
        from client_sdk.tools.tables import print_record

        print_record(terminal, f"{arguments.kind} {arguments.id}", answer)
    return 0
