"""Print the behaviours that no passing test shows; exit with 1 if one of them is due."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.behaviours.catalogue import NOT_YET_DUE, ROWS
from tests.conftest import RECORD


def missing(shown: Mapping[str, Sequence[str]]) -> list[str]:
    """The due rows without a test or with a failing one."""
    return [
        row
        for row in ROWS
        if row not in NOT_YET_DUE and (not shown.get(row) or "failed" in shown[row])
    ]


def main() -> int:
    """Check the recorded results of the last run with `--recorded`, else run the tests."""
    if "--recorded" not in sys.argv[1:]:
        # The record of an earlier run must not count for a run that did not finish.
        RECORD.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--ignore=tests/js"]
        subprocess.run(command, check=False)
    if not RECORD.exists():
        print("no test run is recorded: run the tests first")
        return 1
    shown = json.loads(RECORD.read_text())
    unknown = sorted(set(shown) - set(ROWS))
    uncovered = missing(shown)
    for row in unknown:
        print(f"{row}: no such row in the catalogue")
    for row in uncovered:
        failing = "its test fails" if shown.get(row) else "no test"
        print(f"{row}: {ROWS[row]} ({failing})")
    print("not yet due:", *(row for row in ROWS if row in NOT_YET_DUE and row not in shown))
    due = len(ROWS) - len(NOT_YET_DUE)
    early = len([row for row in shown if row in NOT_YET_DUE])
    print(f"{due - len(uncovered)} of {due} behaviours due are shown; {early} more are shown early")
    return 1 if uncovered or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
