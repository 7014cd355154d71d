"""Run the tests of the JavaScript client that need real servers."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from server.access import new_secret
from tests.kit.server.demo import demo

FOLDER = Path(__file__).parent.parent.parent / "client_js"


@pytest.mark.timeout(180)
def test_javascript_client_works_with_real_servers() -> None:
    assert (FOLDER / "node_modules").is_dir(), "run `npm --prefix client_js ci` first"
    secret = new_secret()
    environ = {"FLOORCAST_AUTH__SECRET": secret, "FLOORCAST_AUTH__EXPIRY_GRACE_SECONDS": "1"}
    with (
        demo("--feed", "none", environ=environ) as one,
        demo("--feed", "none", environ=environ) as two,
    ):
        done = subprocess.run(
            ["npx", "vitest", "run", "--config", "vitest.server.config.ts"],
            cwd=FOLDER,
            env={
                **os.environ,
                "FLOORCAST_URLS": json.dumps([one.url, two.url]),
                "FLOORCAST_SECRET": secret,
            },
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
