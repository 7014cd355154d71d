"""Run all benchmarks: prints their tables, writes them as JSON, the goals as a table, and plots.

The exit code is 1 if a goal is missed. Each runs alone, too: `python -m benchmarks.sweep`.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import Any

from benchmarks.plots import draw
from benchmarks.processes import FOLDER, RESULTS

# More than three rounds of any of them take; one that hangs must not keep the others from running.
_MAX_SECONDS = 1800.0
# Those that judge a goal come in the order of the goals.
BENCHMARKS = (
    "sweep",
    "market",
    "idle",
    "talk",
    "slow",
    "workers",
    "restart",
    "sdk_receive",
    "ingest",
    "loop_hold",
    "start",
    "crowd",
    "growth",
    "views",
    "hostile",
    "brokers",
)


def run(command: list[str]) -> None:
    """Run one benchmark, and end all that it has started, also if it does not end in time."""
    process = subprocess.Popen(command, cwd=FOLDER.parent, start_new_session=True)
    try:
        process.wait(_MAX_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"ended after {_MAX_SECONDS:.0f} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_all(names: list[str], flags: list[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Run the benchmarks one after the other; their results, and those that failed."""
    results: dict[str, dict[str, Any]] = {}
    failed: list[str] = []
    for name in names:
        print(f"\n=== {name}", flush=True)
        path = RESULTS / f"{name}.json"
        path.unlink(missing_ok=True)
        run([sys.executable, "-m", f"benchmarks.{name}", *flags])
        if path.exists():
            results[name] = json.loads(path.read_text())
        else:
            failed.append(name)
    return results, failed


def table_of(results: dict[str, dict[str, Any]]) -> str:
    """The goals as a table in Markdown."""
    lines = ["| # | what | value | bound | |", "|---|---|---|---|---|"]
    for result in results.values():
        for each in result["verdicts"]:
            sense = ">=" if each["is_minimum"] else "<="
            lines.append(
                f"| {each['number']} | {each['what']} | {each['value']:,.2f} "
                f"| {sense} {each['bound']:,.2f} | {'met' if each['met'] else '**missed**'} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of each: a trial")
    parser.add_argument("--no-node", action="store_true")
    arguments = parser.parse_args()
    flags = [f"--rounds={arguments.rounds}"]
    flags += ["--quick"] * arguments.quick + ["--no-node"] * arguments.no_node
    results, failed = run_all(arguments.only, flags)
    table = table_of(results)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "goals.md").write_text(table + "\n")
    print(f"\n{table}")
    for path in draw(results, RESULTS):
        print(f"plot: {path}")
    if failed:
        print(f"without a result: {', '.join(failed)}")
    missed = [each for result in results.values() for each in result["verdicts"] if not each["met"]]
    return int(bool(missed or failed))


if __name__ == "__main__":
    raise SystemExit(main())
