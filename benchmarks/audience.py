"""The clients of one server in two processes: some are watched closely, most only count, cheaply.

Reading each message as it comes costs a client here as much as sending it costs a good server. So
those that only count nap and read several at once, which would spoil the ages that the others tell.
"""

from contextlib import ExitStack
from typing import Any, Self

from benchmarks.processes import Peer

CONCURRENT_CONNECTS = 64


class Audience:
    """Answers like one load; times and shares of the CPU are those of both processes together."""

    def __init__(
        self,
        peer: Peer,
        clients: int,
        *,
        each: int,
        symbols: int,
        timed_every: int,
        far: bool = False,
    ) -> None:
        flags = [
            f"--clients={clients}",
            f"--each={each}",
            f"--symbols={symbols}",
            f"--timed-every={timed_every}",
            *(["--far"] if far else []),
        ]
        module = "benchmarks.timed_load"
        with ExitStack() as started:
            self._timed = started.enter_context(peer.load(*flags, module=module))
            self._all = [self._timed]
            # Where everybody is timed, nobody only counts.
            if timed_every > 1:
                self._all.append(
                    started.enter_context(peer.load(*flags, "--counting", module=module))
                )
            self._processes = started.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def open(self) -> None:
        """Let all clients connect and subscribe."""
        self._ask("open", CONCURRENT_CONNECTS)

    def record(self) -> float:
        """Forget what came until now; says the CPU time used."""
        return float(sum(each["cpu"] for each in self._ask("record")))

    def drain(self, published: int, seconds: int) -> dict[str, Any]:
        """Wait until all of so many messages have come, or no more do, for at most so long."""
        return self._merge(self._ask("drain", published, seconds))

    def figures(self) -> dict[str, Any]:
        """What came since `record`."""
        return self._merge(self._ask("figures"))

    def pause_reading(self, clients: int) -> None:
        """So many, evenly chosen among all, stop reading."""
        self._timed.ask(f"stop {clients}")

    def resume_reading(self) -> dict[str, Any]:
        """They come back; says how fresh their data is a second later."""
        return self._timed.ask("read_again")

    def _ask(self, *words: object) -> list[dict[str, Any]]:
        """Everybody at once."""
        for process in self._all:
            process.send(" ".join(map(str, words)))
        return [process.read_reply() for process in self._all]

    @staticmethod
    def _merge(answers: list[dict[str, Any]]) -> dict[str, Any]:
        """The ages of those that are watched, the counts of everybody."""
        sums = {
            key: sum(each[key] for each in answers) for key in ("came", "merged", "lost", "cpu")
        }
        return {**answers[0], **sums, "at": max(each["at"] for each in answers)}
