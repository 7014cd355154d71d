"""Runs the command as `python -P -m floorcast`; -P: no folder of the user hides our packages."""

import sys

from floorcast.command import main

sys.exit(main())
