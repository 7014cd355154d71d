"""Runs the tests of stock JavaScript clients against two servers that share one Redis."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from client_sdk.contract import Scope
from server.cli.private_redis import private_redis
from tests.kit.programs import require_program
from tests.kit.server.workers import Workers, workers

FOLDER = Path(__file__).parent
GRACE_SECONDS = 2


@pytest.mark.timeout(180)
def test_session_members_recover_on_the_other_node() -> None:
    require_program("redis-server")
    assert (FOLDER / "node_modules").is_dir(), "run `npm --prefix tests/js ci` first"
    with private_redis() as redis:
        environ = {
            "FLOORCAST_BROKER__URL": redis,
            "FLOORCAST_SERVER__DRAIN_SECONDS": "1",
            "FLOORCAST_SERVER__TRANSPORTS": "websocket,polling",
            "FLOORCAST_SESSION__GRACE_SECONDS": str(GRACE_SECONDS),
        }
        with workers(1, environ=environ) as one, workers(1, environ=environ) as two:
            members = {user: Workers.token(user, [Scope.SESSION_JOIN]) for user in ("ann", "bob")}
            variables = {
                "FLOORCAST_NODES": json.dumps(
                    [{"url": each.url, "pid": each.process.pid} for each in (one, two)]
                ),
                "FLOORCAST_MEMBERS": json.dumps(members),
                "FLOORCAST_GRACE_SECONDS": str(GRACE_SECONDS),
            }
            done = subprocess.run(
                ["node", "--test", *map(str, sorted(FOLDER.glob("nodes/*.test.mjs")))],
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                timeout=150,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
