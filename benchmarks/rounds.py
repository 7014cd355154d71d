"""Measure all peers in turn, and compare the medians with goals."""

import argparse
import statistics
from collections.abc import Callable, Iterable

Figures = dict[str, float]


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of every benchmark that compares peers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round: a trial")
    parser.add_argument("--no-node", action="store_true")
    return parser


def rounds_of(arguments: argparse.Namespace) -> int:
    """How many rounds to run."""
    return 1 if arguments.quick else int(arguments.rounds)


def run_rounds(
    names: Iterable[str], rounds: int, measure: Callable[[str], Figures]
) -> dict[str, list[Figures]]:
    """Measure each peer in every round, so that a slow phase of the machine affects all."""
    runs: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, each in runs.items():
            each.append(measure(name))
    return runs


def medians(runs: dict[str, list[Figures]]) -> dict[str, Figures]:
    """The medians of each peer's figures."""
    return {
        name: {key: statistics.median(run[key] for run in each) for key in each[0]}
        for name, each in runs.items()
    }
