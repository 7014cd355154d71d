"""The simulated feed: consistent order books, prices and trades at a steady rate."""

import asyncio
import itertools
import logging
import math

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.feeds.errors import FeedError
from server.feeds.listing import listings, named_listings
from server.feeds.pacing import Pacer, Sleep
from server.feeds.walk import RandomWalk
from server.ports import FeedOptions, Publishing

logger = logging.getLogger(__name__)

# A fast market makes several steps between two sleeps: timers cost time and are imprecise.
_MIN_SLEEP_SECONDS = 0.005
# After a longer stall the missed steps are skipped, to avoid a burst.
_STALL_SECONDS = 1.0


class _RefusalLog:
    """Logs each code once."""

    def __init__(self) -> None:
        self._codes: set[ErrorCode] = set()

    def log(self, error: FloorcastError) -> None:
        if error.code not in self._codes:
            self._codes.add(error.code)
            logger.warning("a message was refused", extra={"code": error.code.value})


class SimulatedFeed:
    """Steps one symbol after the other, `rate` steps per second in total."""

    def __init__(self, options: FeedOptions, *, sleep: Sleep = asyncio.sleep) -> None:
        if options.argument:
            raise FeedError("the simulated market takes no argument")
        if options.symbols < 1 or not 0 < options.rate < math.inf:
            # Otherwise `run` would block the event loop.
            raise FeedError("the simulated market needs symbols, and a rate above zero")
        self._options = options
        self._sleep = sleep

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled; every run restarts the same market."""
        options, clock = self._options, self._options.clock
        seed = options.seed
        listed = (
            named_listings(options.symbol_names, seed=seed)
            if options.symbol_names
            else listings(options.symbols, seed=seed)
        )
        walks = [RandomWalk(listing, seed=seed) for listing in listed]
        refused = _RefusalLog()
        pace = Pacer(clock, self._sleep, min_sleep_seconds=_MIN_SLEEP_SECONDS)
        due = clock.monotonic()
        # Whether each symbol was said to be open; a closed one has published its state at least.
        were_open: dict[str, bool] = {}
        for walk in itertools.cycle(walks):
            ts_ms = int(clock.time() * 1000)
            symbol, is_open = walk.listing.symbol, walk.listing.is_open(ts_ms)
            if is_open or symbol not in were_open:
                for publication in walk.step(ts_ms):
                    try:
                        await publishing.publish(
                            publication.topic, publication.data, kind=publication.kind
                        )
                    except FloorcastError as error:
                        # The market continues while the broker is unavailable.
                        walk.request_snapshot()
                        refused.log(error)
            if were_open.get(symbol) is not is_open:
                try:
                    fields = walk.listing.instrument(is_open=is_open)
                    await publishing.set_instrument(symbol, fields)
                    were_open[symbol] = is_open
                except FloorcastError as error:
                    refused.log(error)
            due += 1.0 / options.rate
            now = clock.monotonic()
            if now - due > _STALL_SECONDS:
                due = now
            await pace.sleep_until(due)
