"""`floorcast record`: writes topics to a file, with positions and times."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

from client_sdk.client import Client
from client_sdk.contract import MarketMessage
from client_sdk.reading.gaps import Gap
from client_sdk.tools.claims import user_of
from client_sdk.tools.options import (
    Commands,
    UsageError,
    add_target,
    count,
    positive,
    target_of,
)
from client_sdk.tools.progress import Progress
from client_sdk.tools.recording import RecordingWriter


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "record",
        help="record topics to a file",
        description=(
            "Write every message of the topics to a file, one JSON object a line, until Ctrl-C, "
            "--seconds or --count. A connection that is lost is resumed without a hole; messages "
            "that are gone for good are reported, and the exit status is 1."
        ),
        epilog="Play it with: floorcast replay FILE, or floorcast serve --feed replay:FILE",
    )
    parser.add_argument("topics", nargs="+", metavar="TOPIC", help="such as TRADES:BTCUSDT")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seconds", type=positive, help="stop after so long")
    parser.add_argument("--count", type=count, help="stop after so many messages")
    add_target(parser)
    parser.set_defaults(run_tool=_run)


async def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    target = target_of(arguments, environ)
    try:
        file = arguments.output.open("x", encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{arguments.output} exists: name another file") from None
    except OSError as error:
        raise UsageError(f"cannot write {arguments.output}: {error.strerror}") from None
    gaps: list[Gap] = []
    with file:
        writer = RecordingWriter(file, user_of(target.token))
        recording = _record(arguments, target.client(), writer, gaps)
        # Ctrl-C cancels: it is how a recording ends.
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(arguments.seconds):
                await recording
    print(f"{writer.count} messages in {arguments.output}", file=sys.stderr)
    for gap in gaps:
        last = gap.missed_to if gap.missed_to is not None else "?"
        print(f"missing: {gap.topic} {gap.epoch}:{gap.missed_from}-{last}", file=sys.stderr)
    return 1 if gaps else 0


async def _record(
    arguments: argparse.Namespace, client: Client, writer: RecordingWriter, gaps: list[Gap]
) -> None:
    async with client:
        with Progress("recorded", arguments.count) as progress:
            async for item in client.market.stream(*arguments.topics):
                if isinstance(item, Gap):
                    gaps.append(item)
                    continue
                writer.write(item, _data(item))
                progress.advance()
                if writer.count == arguments.count:
                    return


def _data(message: MarketMessage) -> dict[str, object]:
    body = message.model_dump(mode="json", include={"data"}, exclude_unset=True)
    data: dict[str, object] = body["data"]
    return data
