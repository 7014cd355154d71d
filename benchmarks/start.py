"""Measure how long `floorcast serve` takes until it is ready, and `import floorcast`.

Beside them stand an empty program, and one that only imports aiohttp and python-socketio. The
modules are compiled before, as pip does when it installs a package.
"""

import compileall
import subprocess
import sys
import time
from typing import Any

from benchmarks.goals import at_most, exit_code
from benchmarks.processes import FOLDER, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds
from benchmarks.served import ServerProcess

FLOORS = ("pass", "import aiohttp.web, socketio")
GOALS = {"serve, ready": 0.25, "import floorcast": 0.18, "from floorcast import Client": 0.18}
REPEATS = 5
_PACKAGES = ("floorcast", "server", "client_sdk")


def measure(what: str) -> Figures:
    """The fastest of some repeats: other work only adds time."""
    return {"seconds": min(_once(what) for _ in range(REPEATS))}


def _once(what: str) -> float:
    began = time.monotonic()
    if what.startswith("serve"):
        with ServerProcess(broker="memory://") as server:
            return server.ready_at - began
    subprocess.run([sys.executable, "-c", what], cwd=FOLDER.parent, check=True)
    return time.monotonic() - began


def main() -> int:
    arguments = argument_parser(__doc__).parse_args()
    load_before, began = load_average(), time.monotonic()
    for package in _PACKAGES:
        compileall.compile_dir(FOLDER.parent / package, quiet=1)
    middle = medians(runs := run_rounds((*FLOORS, *GOALS), rounds_of(arguments), measure))
    engines = middle[FLOORS[-1]]["seconds"]
    rows: list[dict[str, Any]] = [
        {"what": what, "seconds": each["seconds"], f"x {FLOORS[-1]}": each["seconds"] / engines}
        for what, each in middle.items()
    ]
    verdicts = [
        at_most("P13", f"s, {what}", middle[what]["seconds"], goal) for what, goal in GOALS.items()
    ]
    report("start", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
