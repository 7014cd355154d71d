"""`floorcast token inspect`: shows what a token says, and whether this server would accept it."""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jwt

from server.access import AccessConfig, ConfigurationError, build_verifier
from server.cli.sources import Commands, add_config, settings_from
from server.configs import access_config
from server.core.errors import FloorcastError
from server.server import SystemClock

_TIMES = ("exp", "iat", "nbf")


def add_to(actions: Commands) -> None:
    """Add the action to the parser of `floorcast token`."""
    parser = actions.add_parser(
        "inspect",
        help="show what a token says",
        description=(
            "Show a token's claims, and whether a server with this configuration accepts it. The "
            "exit status is 1 if it does not."
        ),
    )
    parser.add_argument(
        "token", nargs="?", help="the token; without it, read from the standard input"
    )
    parser.add_argument("--json", action="store_true", help="print the claims as JSON")
    add_config(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    token = (arguments.token or sys.stdin.read()).strip().removeprefix("Bearer ")
    try:
        header = jwt.get_unverified_header(token)
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise ConfigurationError(f"this is no JWT: {error}") from None
    settings = settings_from(arguments, environ)
    auth = settings.auth
    checked = any((auth.secret, auth.public_key_file, auth.jwks_url))
    refusal = _refusal(token, access_config(settings)) if checked else None
    if arguments.json:
        body = {"header": header, "claims": claims, "checked": checked, "refused": refusal}
        print(json.dumps(body))
        return 0 if refusal is None else 1
    _print(header, claims)
    if refusal is not None:
        print(f"refused: {refusal['message']} ({refusal['code']})")
        return 1
    print(
        "accepted by this configuration"
        if checked
        else "not checked: no key is configured (FLOORCAST_AUTH__SECRET or --config)"
    )
    return 0


def _refusal(token: str, access: AccessConfig) -> dict[str, object] | None:
    """Why the server would refuse it; None if it accepts it."""
    try:
        asyncio.run(build_verifier(access, SystemClock()).verify(token))
    except FloorcastError as error:
        return error.body()
    return None


def _print(header: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
    key = f", key {header['kid']}" if "kid" in header else ""
    print(f"signed with {header.get('alg')}{key}")
    for name, value in claims.items():
        print(f"{name:>10}  {_shown(name, value)}")


def _shown(name: str, value: object) -> str:
    if name in _TIMES and isinstance(value, int | float):
        try:
            moment = datetime.fromtimestamp(value, UTC)
        except (OverflowError, ValueError):
            return str(value)
        seconds = int((moment - datetime.now(UTC)).total_seconds())
        relative = f"in {seconds} s" if seconds >= 0 else f"{-seconds} s ago"
        return f"{moment:%Y-%m-%d %H:%M:%S} UTC ({relative})"
    return value if isinstance(value, str) else json.dumps(value)
