"""`floorcast publish`: publishes one message."""

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
    json_object,
    target_of,
)


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "publish",
        help="publish a message",
        description="Publish one message to a topic; the token needs the scope market:publish.",
    )
    parser.add_argument("topic", help="such as PRICE:BTCUSDT, or USER_DATA with --user")
    parser.add_argument("data", metavar="JSON", help="the message's data, a JSON object")
    parser.add_argument("--type", choices=("update", "snapshot"), help="default update")
    parser.add_argument("--id", help="publish it once, however often this is repeated")
    parser.add_argument("--user", help="the owner of a private topic")
    add_target(parser)
    add_json(parser, "the position")
    add_curl(parser)
    parser.set_defaults(run_tool=_run)


async def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    target = target_of(arguments, environ)
    message: dict[str, object] = {
        "topic": arguments.topic,
        "data": json_object(arguments.data, "the data"),
    }
    for name in ("type", "id", "user"):
        value = getattr(arguments, name)
        if value is not None:
            message[name] = value
    body = {"messages": [message]}
    if arguments.curl:
        print(curl("POST", target.url + path("publish"), with_token=True, body=body))
        return 0
    target.require_token(Scope.MARKET_PUBLISH)
    async with Api(target) as api:
        answer = await api.post(path("publish"), body)
    positions = answer.get("positions")
    position = positions[0] if isinstance(positions, list) and positions else {}
    if arguments.json:
        print(json.dumps(position))
    else:
        print(f"published {arguments.topic} at {position.get('epoch')}:{position.get('seq')}")
    return 0
