"""`floorcast` whose workers may share nothing: what is true of processes needs no Redis to show."""

import sys
from unittest.mock import patch

from server.cli import main

if __name__ == "__main__":
    with patch("server.cli.serve.check_workers"):
        sys.exit(main())
