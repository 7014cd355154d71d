"""Measure pages in Chromium at so many updates a second: `python -m benchmarks.browser [RATE...]`.

A page of 200 React components, and the console, at every update. Needs `npm ci` in client_js and
console, and chromium.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from server.access import new_secret
from tests.kit.server.demo import demo

REPOSITORY = Path(__file__).parent.parent
PAGES = {"client_js": "200", "console": "100"}


def main() -> None:
    for rate in sys.argv[1:] or ("200", "500", "2000"):
        for folder, symbols in PAGES.items():
            measure(folder, symbols, rate)


def measure(folder: str, symbols: str, rate: str) -> None:
    """Print the figures of a page for so many updates a second."""
    secret = new_secret()
    environ = {
        "FLOORCAST_AUTH__SECRET": secret,
        "FLOORCAST_FEED__SYMBOLS": symbols,
        "FLOORCAST_FEED__RATE": rate,
        "FLOORCAST_LIMITS__TOPICS_PER_CONNECTION": "300",
    }
    with demo(environ=environ) as server:
        subprocess.run(
            ["npx", "vitest", "run", "--config", "vitest.bench.config.ts"],
            cwd=REPOSITORY / folder,
            env={
                **os.environ,
                "FLOORCAST_URLS": json.dumps([server.url]),
                "FLOORCAST_SECRET": secret,
            },
            check=True,
        )


if __name__ == "__main__":
    main()
