"""`floorcast contract`: prints the wire contract for programs in other languages."""

import argparse
import json
from collections.abc import Mapping

from client_sdk import __version__
from client_sdk.contract.formats import asyncapi, json_schema, typescript
from server.cli.sources import Commands


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "contract",
        help="print the events and messages for another language",
        description="Print the wire contract, generated from the models of this release.",
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=["asyncapi", "jsonschema", "typescript"],
        help="AsyncAPI 3, JSON Schema (2020-12), or types for TypeScript",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.format == "typescript":
        print(typescript(), end="")
        return 0
    build = asyncapi if arguments.format == "asyncapi" else json_schema
    print(json.dumps(build(__version__), indent=2))
    return 0
