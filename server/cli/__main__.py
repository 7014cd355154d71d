"""Lets `python -m server.cli` be the command line, where no script was installed."""

import sys

from server.cli.main import main

sys.exit(main())
