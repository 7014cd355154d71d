"""Send the HTTP API what schemathesis makes of its description: `python -m tests.web.api.fuzz`.

The program `schemathesis` must be installed; other arguments are passed on to it. With the variable
`FLOORCAST_BROKER__URL` the server uses that Redis.
"""

import os
import subprocess
import sys

from client_sdk.contract import Scope
from tests.kit.server.workers import workers

# As fast as it can, from one address and one user.
_UNLIMITED = {
    "FLOORCAST_LIMITS__REQUESTS_PER_SECOND": "0",
    "FLOORCAST_LIMITS__REQUESTS_PER_SECOND_PER_IP": "0",
}


def main() -> int:
    """Run all checks against a server; returns the exit code of schemathesis."""
    broker = {key: os.environ[key] for key in ("FLOORCAST_BROKER__URL",) if key in os.environ}
    with workers(1, environ={**_UNLIMITED, **broker}) as server:
        return subprocess.run(
            [
                *("schemathesis", "run", f"{server.url}/api/v1/openapi.json"),
                *("--header", f"Authorization: Bearer {server.token('ops', tuple(Scope))}"),
                *("--checks", "all", "--continue-on-failure", *sys.argv[1:]),
            ],
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
