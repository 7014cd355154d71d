"""Runs the command line as `python -m server.cli`, without an installed script."""

import sys

from server.cli.main import main

sys.exit(main())
