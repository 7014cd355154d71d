"""The command `floorcast`, which can be imported without the packages of the server."""

import sys

from floorcast.extras import MissingServer, require_server


def main() -> int:
    """Run the command; 2 if the server is not installed."""
    try:
        require_server()
    except MissingServer as error:
        print(f"floorcast: {error}", file=sys.stderr)
        return 2
    from server.cli import main as run

    return run()
