"""Gives the messages of files to readers, one after the other, and waits for slow readers."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from client_sdk.contract import AnyMessage
from client_sdk.errors import FloorcastError
from client_sdk.reading.gaps import Gap

# A reader that never waits for anything else must not block the event loop.
_MESSAGES_PER_TURN = 100


class ReplayStuck(FloorcastError):
    """A stream of a replay is open and is not read, so that the others wait for it."""

    default_code = "client.replay_stuck"


class TapeReader(Protocol):
    """A reader of a tape."""

    @property
    def topics(self) -> tuple[str, ...]: ...

    @property
    def is_busy(self) -> bool:
        """Whether it has unread items, or somebody handles its last one."""

    def deliver(self, item: AnyMessage | Gap) -> None:
        """Take an item if it is of one's topics."""

    def end(self, error: FloorcastError | None = None) -> None:
        """Receive nothing more."""


class TapeClock:
    """The time of the newest message: ages are measured in the time of the recording."""

    def __init__(self) -> None:
        self.now_ms = 0

    def age_seconds(self, ts_ms: int) -> float:
        """The time since `ts_ms`, never negative."""
        return max(0.0, (self.now_ms - ts_ms) / 1000)


class Tape:
    """The position in the files that all readers share.

    A reader that wants more moves it on, once no other one is busy: so all see the same time.
    """

    def __init__(
        self, items: Iterator[tuple[int, AnyMessage | Gap]], *, stuck_seconds: float
    ) -> None:
        self._items = items
        self._stuck_seconds = stuck_seconds
        self.clock = TapeClock()
        # In the order of their opening.
        self._readers: dict[TapeReader, None] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._delivered = 0
        self.is_ended = False

    def add(self, reader: TapeReader) -> None:
        """Let a reader have what comes from now on."""
        if self.is_ended:
            reader.end()
        self._readers[reader] = None

    def remove(self, reader: TapeReader) -> None:
        """Forget a reader."""
        self._readers.pop(reader, None)
        self.notify()

    async def advance(self, reader: TapeReader, is_served: Callable[[], bool]) -> None:
        """Move on until a reader has got something, or the files have ended.

        Raises `ReplayStuck` if another reader stays busy for too long.
        """
        while not is_served() and not self.is_ended:
            busy = next(
                (each for each in self._readers if each is not reader and each.is_busy), None
            )
            if busy is not None:
                await self._wait_for(busy)
                continue
            self._step()
            self._delivered += 1
            if self._delivered % _MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    def notify(self) -> None:
        """Wake those who wait for a reader: it may be free now."""
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    def close(self) -> None:
        """End all readers."""
        self.is_ended = True
        for each in tuple(self._readers):
            each.end()
        self.notify()

    def _step(self) -> None:
        try:
            timed = next(self._items, None)
        except FloorcastError as error:
            for each in tuple(self._readers):
                each.end(error)
            self.is_ended = True
            timed = None
        if timed is None:
            self.close()
            return
        self.clock.now_ms, item = timed
        if not isinstance(item, Gap):
            item.use_clock(self.clock)
        for reader in tuple(self._readers):
            reader.deliver(item)
        self.notify()

    async def _wait_for(self, reader: TapeReader) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(self._stuck_seconds):
                await changed
        except TimeoutError:
            raise ReplayStuck(
                f"nobody reads the stream of {', '.join(reader.topics)}: close it, or read it in a "
                "task of its own"
            ) from None
        finally:
            self._waiting.discard(changed)
