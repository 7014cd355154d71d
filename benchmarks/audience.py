"""Run the clients of one server in two processes: timed ones, and cheap ones that only count.

Reading each message on arrival costs a client as much as sending it costs a fast server. Counting
clients therefore sleep and read several messages at once, which would falsify measured ages.
"""

from contextlib import ExitStack
from typing import Any, Self

from benchmarks.processes import Peer

CONCURRENT_CONNECTS = 64


class Audience:
    """Both load processes as one; CPU times are sums."""

    def __init__(
        self,
        peer: Peer,
        clients: int,
        *,
        each: int,
        symbols: int,
        timed_every: int,
        far: bool = False,
        one_room: bool = False,
    ) -> None:
        flags = [
            f"--clients={clients}",
            f"--each={each}",
            f"--symbols={symbols}",
            f"--timed-every={timed_every}",
            *(["--far"] if far else []),
        ]
        self._timed_every = timed_every
        module = "benchmarks.timed_load"
        with ExitStack() as started:
            polled = ["--polled"] if one_room else []
            self._timed = started.enter_context(peer.load(*flags, *polled, module=module))
            self._all = [self._timed]
            if one_room:
                # In each group the middle client is timed.
                timed = (clients + timed_every - timed_every // 2 - 1) // timed_every
                count = clients - timed
                room = peer.load(f"--clients={count}", module="benchmarks.room_load")
                self._all.append(started.enter_context(room))
            # If every client is timed, there is no counting process.
            elif timed_every > 1:
                self._all.append(
                    started.enter_context(peer.load(*flags, "--counting", module=module))
                )
            self._processes = started.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def open(self, count: int | None = None) -> None:
        """Connect and subscribe all clients, or so many more, in both processes at the same pace.

        Else the timed ones would all come first, and be the first to be served.
        """
        timed = max(1, round(CONCURRENT_CONNECTS * 2 / self._timed_every))
        counts = [""] * 2
        if count is not None:
            # As TimedLoad assigns them: the first and the middle one of each group are timed.
            in_timed = count if len(self._all) == 1 else 2 * count // self._timed_every
            counts = [str(in_timed), str(count - in_timed)]
        concurrent = zip(self._all, (timed, CONCURRENT_CONNECTS), counts, strict=False)
        for process, at_once, more in concurrent:
            process.send(f"open {at_once} {more}")
        for process in self._all:
            process.read_reply()

    def record(self) -> float:
        """Restart the measurement; return the CPU time used so far."""
        return float(sum(each["cpu"] for each in self._ask("record")))

    def drain(self, published: int, seconds: int) -> dict[str, Any]:
        """Wait up to `seconds` for all published messages, or until no more come."""
        return self._merge(self._ask("drain", published, seconds))

    def figures(self) -> dict[str, Any]:
        """The figures since `record`."""
        return self._merge(self._ask("figures"))

    def pause_reading(self, clients: int) -> None:
        """Stop reading in this many clients, chosen evenly."""
        self._timed.ask(f"stop {clients}")

    def resume_reading(self) -> dict[str, Any]:
        """Read again; return how fresh the data is a second later."""
        return self._timed.ask("resume")

    def _ask(self, *words: object) -> list[dict[str, Any]]:
        """Send a command to both processes at once; return their replies."""
        for process in self._all:
            process.send(" ".join(map(str, words)))
        return [process.read_reply() for process in self._all]

    @staticmethod
    def _merge(answers: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge the replies: ages of the timed clients, counts of all."""
        sums = {
            key: sum(each[key] for each in answers)
            for key in ("received", "merged", "lost", "cpu", "wrong", "disordered")
        }
        return {**answers[0], **sums, "at": max(each["at"] for each in answers)}
