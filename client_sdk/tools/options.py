"""The options that all commands share: the server's address, the token, the form of the output."""

import argparse
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client_sdk.client import Client

Commands = Any  # argparse's own name for what `add_subparsers` returns is private

# Who types a command does not want to wait long for a server that is not there.
_START_SECONDS = 5.0

DEFAULT_URL = "http://127.0.0.1:8000"


class UsageError(Exception):
    """The command cannot run as it was called; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the token to use there."""

    url: str
    token: str | None = field(repr=False)

    def client(self) -> "Client":
        """A client of the server, not yet connected."""
        # Here, because the commands that need only the HTTP API start faster without it.
        from client_sdk.client import Client
        from client_sdk.config import ClientConfig

        return Client(self.url, self.token, config=ClientConfig(start_seconds=_START_SECONDS))

    def require_token(self, scope: str) -> str:
        """The token; raises `UsageError` that names the scope if there is none."""
        if self.token is None:
            raise UsageError(
                f"this needs a token with the scope {scope}: give --token or set FLOORCAST_TOKEN"
            )
        return self.token


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the options for the server's address and the token."""
    parser.add_argument(
        "--url", help=f"the server's address (default FLOORCAST_URL, else {DEFAULT_URL})"
    )
    parser.add_argument("--token", help="the token (default FLOORCAST_TOKEN)")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option for output that programs read."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON, for programs")


def add_curl(parser: argparse.ArgumentParser) -> None:
    """Add the option that prints the request instead of sending it."""
    parser.add_argument(
        "--curl", action="store_true", help="print the request as a curl command, and do nothing"
    )


def target_of(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Target:
    """The server that the options, or else the environment, name."""
    url = arguments.url or environ.get("FLOORCAST_URL") or DEFAULT_URL
    token = arguments.token or environ.get("FLOORCAST_TOKEN") or None
    return Target(url.rstrip("/"), token)


def positive(text: str) -> float:
    """Parse a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return number


def count(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return int(text)


def json_object(text: str, what: str) -> dict[str, object]:
    """Parse a JSON object; raises `UsageError` with the place of a mistake."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f'{what} must be a JSON object, such as \'{{"last": "1.5"}}\'')
    return value


def curl(method: str, url: str, *, with_token: bool, body: object = None) -> str:
    """A request as a curl command; the token stays in the shell's variable."""
    words = ["curl", "-sS"]
    if method != "GET":
        words += ["-X", method]
    command = " ".join(map(shlex.quote, words))
    if with_token:
        command += ' -H "Authorization: Bearer $FLOORCAST_TOKEN"'
    if body is not None:
        text = json.dumps(body, ensure_ascii=False)
        command += f" -H 'Content-Type: application/json' -d {shlex.quote(text)}"
    return f"{command} {shlex.quote(url)}"
