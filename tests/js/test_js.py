"""Run the JavaScript tests of the stock client with Node's test runner."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from client_sdk.contract import Scope
from server.access import mint, new_secret
from server.server import SystemClock
from tests.kit.server.demo import demo

FOLDER = Path(__file__).parent
USERS = ("ann", "bob", "carl", "dora", "ann-of-acme")


def session_token(secret: str, name: str) -> str:
    """A token for sessions; `ann-of-acme` is Ann, in another org."""
    user, _, org = name.partition("-of-")
    return mint(
        secret,
        subject=user,
        scopes=[Scope.MARKET_READ, Scope.SESSION_JOIN],
        clock=SystemClock(),
        ttl_seconds=600,
        org=org or "default",
    )


@pytest.mark.behaviour("C1", "C2")
@pytest.mark.timeout(300)
def test_stock_javascript_clients() -> None:
    assert (FOLDER / "node_modules").is_dir(), "run `npm --prefix tests/js ci` first"
    secret = new_secret()
    big_market = {
        "FLOORCAST_FEED__SYMBOLS": "100",
        "FLOORCAST_FEED__RATE": "500",
        "FLOORCAST_LIMITS__TOPICS_PER_CONNECTION": "300",
    }
    with (
        demo(environ={"FLOORCAST_AUTH__SECRET": secret}) as running,
        demo(environ=big_market) as market,
    ):
        now = int(time.time())
        claims = {"sub": "eve", "iat": now - 60, "exp": now + 60, "aud": "floorcast"}
        with pytest.warns(jwt.InsecureKeyLengthWarning):
            weak = jwt.encode(claims, "weak")
        tokens = {
            "FLOORCAST_URL": running.url,
            "FLOORCAST_TOKEN": running.tokens["trader"],
            "FLOORCAST_MARKET_URL": market.url,
            "FLOORCAST_MARKET_TOKEN": market.tokens["trader"],
            "FLOORCAST_EXPIRED": jwt.encode({**claims, "exp": now - 1}, secret),
            "FLOORCAST_OTHER_AUDIENCE": jwt.encode({**claims, "aud": "another"}, secret),
            "FLOORCAST_WEAK_KEY": weak,
            "FLOORCAST_PYTHON": sys.executable,
            "FLOORCAST_CHAT": str(FOLDER.parent.parent / "examples" / "chat.py"),
            "FLOORCAST_MEMBERS": json.dumps({user: session_token(secret, user) for user in USERS}),
        }
        done = subprocess.run(
            [
                "node",
                "--test",
                "--test-timeout=120000",
                *map(str, sorted(FOLDER.glob("*.test.mjs"))),
            ],
            env={**os.environ, **tokens},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
