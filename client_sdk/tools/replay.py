"""`floorcast replay`: publishes a recording to a server."""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from client_sdk.client import Client
from client_sdk.contract import Scope
from client_sdk.errors import FloorcastError
from client_sdk.tools.options import Commands, UsageError, add_target, positive, target_of
from client_sdk.tools.progress import Progress
from client_sdk.tools.recording import RecordedMessage, read_recording

_MAX_WAITING = 500


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "replay",
        help="publish a recording",
        description=(
            "Publish a recording in its order and at its pace. Each replay publishes the same "
            "messages; with --once each carries an id made of its recorded position, so that a "
            "replay that was interrupted can be repeated and publishes nothing twice."
        ),
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="made by floorcast record, or Parquet"
    )
    parser.add_argument("--speed", type=positive, default=1.0, help="times as fast (default 1)")
    parser.add_argument("--flat-out", action="store_true", help="as fast as the server accepts")
    parser.add_argument("--once", action="store_true", help="publish nothing twice")
    add_target(parser)
    parser.set_defaults(run_tool=_run)


async def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    target = target_of(arguments, environ)
    target.require_token(Scope.MARKET_PUBLISH)
    total = sum(1 for _ in read_recording(arguments.file))
    if not total:
        raise UsageError(f"{arguments.file} has no messages")
    async with target.client() as client:
        replay = _Replay(client, once=arguments.once)
        speed = None if arguments.flat_out else arguments.speed
        with Progress("published", total) as progress:
            await replay.run(arguments.file, speed, progress)
    print(f"{replay.published} of {total} messages published", file=sys.stderr)
    for error, times in replay.refused.items():
        print(f"{times} refused: {error}", file=sys.stderr)
    return 1 if replay.refused else 0


class _Replay:
    """Publishes messages; those of one topic in order."""

    def __init__(self, client: Client, *, once: bool) -> None:
        self._client = client
        self._once = once
        self.published = 0
        # Each different error, with how often it came.
        self.refused: dict[str, int] = {}

    async def run(self, file: Path, speed: float | None, progress: Progress) -> None:
        """Publish the whole file; a `speed` of None does not wait between messages."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        first_ms: int | None = None
        free = asyncio.Semaphore(_MAX_WAITING)
        async with asyncio.TaskGroup() as group:
            for message in read_recording(file):
                first_ms = message.ts_ms if first_ms is None else first_ms
                if speed is not None:
                    due = began + (message.ts_ms - first_ms) / 1000 / speed
                    await asyncio.sleep(max(0.0, due - loop.time()))
                await free.acquire()
                group.create_task(self._publish(message, free, progress))

    async def _publish(
        self, message: RecordedMessage, free: asyncio.Semaphore, progress: Progress
    ) -> None:
        try:
            await self._client.market.publish(
                message.topic,
                message.data,
                id=f"recorded:{message.position}" if self._once else None,
                user=message.user,
                type=cast(Literal["update", "snapshot"], message.kind),
            )
            self.published += 1
        except FloorcastError as error:
            self.refused[str(error)] = self.refused.get(str(error), 0) + 1
        finally:
            progress.advance()
            free.release()
