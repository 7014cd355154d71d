"""`floorcast token`: mints a token with the configured secret."""

import argparse
import math
import secrets
from collections.abc import Mapping

from client_sdk.contract import Scope
from server.access import ConfigurationError, mint
from server.cli import inspecting
from server.cli.sources import Commands, add_config, settings_from
from server.configs import access_config
from server.server import SystemClock

# The server's limit for a user id and an org.
_MAX_NAME_CHARACTERS = 128
_MAX_TTL_SECONDS = 10 * 366 * 24 * 3600


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "token",
        help="make a token",
        description="Print an HS256 token, signed with the configured FLOORCAST_AUTH__SECRET.",
    )
    parser.add_argument("--sub", type=_name, help="the user's id")
    parser.add_argument(
        "--org", default="default", type=_name, help="the tenant (default: default)"
    )
    parser.add_argument(
        "--scope",
        action="append",
        choices=[scope.value for scope in Scope],
        help="what it allows; may be repeated (default market:read session:join)",
    )
    parser.add_argument(
        "--ttl", type=_seconds, default=3600, help="seconds it lives (default 3600)"
    )
    parser.add_argument("--symbols", action="append", metavar="GLOB", help="narrow the symbols")
    parser.add_argument("--sessions", action="append", metavar="GLOB", help="narrow the sessions")
    parser.add_argument(
        "--users",
        action="append",
        metavar="GLOB",
        help="narrow the owners of private topics to publish to",
    )
    add_config(parser)
    parser.set_defaults(run=_run)
    inspecting.add_to(parser.add_subparsers(metavar="ACTION"))


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.sub is None:
        raise ConfigurationError("name the user: floorcast token --sub USER")
    access = access_config(settings_from(arguments, environ))
    if access.secret is None:
        raise ConfigurationError("cannot mint a token: set auth.secret")
    scopes = arguments.scope or [Scope.MARKET_READ, Scope.SESSION_JOIN]
    print(
        mint(
            access.secret,
            subject=arguments.sub,
            scopes=[Scope(scope) for scope in scopes],
            clock=SystemClock(),
            ttl_seconds=arguments.ttl,
            org=arguments.org,
            audience=access.audience,
            issuer=access.issuer,
            symbols=arguments.symbols,
            sessions=arguments.sessions,
            users=arguments.users,
            # So that it can be revoked without the user's other tokens.
            token_id=secrets.token_hex(8),
        )
    )
    return 0


def _name(text: str) -> str:
    if not 0 < len(text) <= _MAX_NAME_CHARACTERS:
        raise argparse.ArgumentTypeError(f"must have 1 to {_MAX_NAME_CHARACTERS} characters")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # Tokens have a lifetime in whole seconds.
    if not 1 <= seconds <= _MAX_TTL_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} must be between 1 and {_MAX_TTL_SECONDS}")
    return seconds
