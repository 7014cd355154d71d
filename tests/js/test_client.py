"""Run the tests of the JavaScript client that need real servers."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from server.access import new_secret
from tests.kit.programs import require_program
from tests.kit.server.demo import demo

REPOSITORY = Path(__file__).parent.parent.parent
FOLDER = REPOSITORY / "client_js"
EXAMPLES = REPOSITORY / "examples"


@pytest.mark.browser
@pytest.mark.timeout(180)
def test_javascript_client_works_with_real_servers() -> None:
    require_program("chromium")
    for folder in (FOLDER, EXAMPLES / "node", EXAMPLES / "react"):
        assert (folder / "node_modules").is_dir(), f"run `npm --prefix {folder} ci` first"
    assert (FOLDER / "dist").is_dir(), "run `npm --prefix client_js run build` first"
    secret = new_secret()
    environ = {"FLOORCAST_AUTH__SECRET": secret, "FLOORCAST_AUTH__EXPIRY_GRACE_SECONDS": "1"}
    with (
        demo("--feed", "none", environ=environ) as one,
        demo("--feed", "none", environ=environ) as two,
        demo(environ={**environ, "FLOORCAST_FEED__SYMBOLS": "20"}) as market,
    ):
        done = subprocess.run(
            ["npx", "vitest", "run", "--config", "vitest.server.config.ts"],
            cwd=FOLDER,
            env={
                **os.environ,
                "FLOORCAST_URLS": json.dumps([each.url for each in (one, two, market)]),
                "FLOORCAST_SECRET": secret,
            },
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
