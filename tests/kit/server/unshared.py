"""Run `floorcast` with several workers and no Redis, for tests about processes only."""

import sys
from unittest.mock import patch

from server.cli import main

if __name__ == "__main__":
    with patch("server.cli.serve.check_workers"):
        sys.exit(main())
