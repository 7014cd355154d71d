"""Measure a page of 200 React components in Chromium: `python -m benchmarks.browser [RATE...]`.

Needs `npm --prefix client_js ci` and chromium.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from server.access import new_secret
from tests.kit.server.demo import demo

FOLDER = Path(__file__).parent.parent / "client_js"


def main() -> None:
    for rate in sys.argv[1:] or ("500",):
        measure(rate)


def measure(rate: str) -> None:
    """Print the figures for so many updates a second."""
    secret = new_secret()
    environ = {
        "FLOORCAST_AUTH__SECRET": secret,
        "FLOORCAST_FEED__SYMBOLS": "200",
        "FLOORCAST_FEED__RATE": rate,
        "FLOORCAST_LIMITS__TOPICS_PER_CONNECTION": "300",
    }
    with demo(environ=environ) as server:
        subprocess.run(
            ["npx", "vitest", "run", "--config", "vitest.bench.config.ts"],
            cwd=FOLDER,
            env={
                **os.environ,
                "FLOORCAST_URLS": json.dumps([server.url]),
                "FLOORCAST_SECRET": secret,
            },
            check=True,
        )


if __name__ == "__main__":
    main()
