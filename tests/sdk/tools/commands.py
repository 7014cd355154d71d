"""Runs one command of `client_sdk.tools` inside the test's loop."""

import argparse
from collections.abc import Mapping

from client_sdk import tools
from tests.kit.server.in_process import RunningServer


def environ_of(node: RunningServer, token: str | None = None) -> dict[str, str]:
    """The variables that name a server and a token."""
    return {"FLOORCAST_URL": node.url, "FLOORCAST_TOKEN": token or node.token()}


async def run(environ: Mapping[str, str], *words: str) -> int:
    """Run a command; returns its exit status, or raises its error."""
    parser = argparse.ArgumentParser()
    tools.add_commands(parser.add_subparsers())
    arguments = parser.parse_args(words)
    code: int = await arguments.run_tool(arguments, environ)
    return code
