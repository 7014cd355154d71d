"""`floorcast tail`: shows topics and sessions live."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping

from client_sdk.client import Client
from client_sdk.connection.states import ClientState
from client_sdk.contract import MarketMessage, SessionMessage
from client_sdk.errors import FloorcastError
from client_sdk.reading.gaps import Gap
from client_sdk.tools.options import Commands, UsageError, add_json, add_target, count, target_of
from client_sdk.tools.screens.text import time_text
from client_sdk.tools.terminal import is_interactive

_SESSION = "session:"
_INTERVALS = (0, 100, 250, 1000)


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "tail",
        help="show topics live",
        description=(
            "Show topics live: prices as a table, an order book as a ladder, trades as a tape, "
            "session:ID as a room. Without a terminal, or with --json, one line a message."
        ),
    )
    parser.add_argument(
        "topics", nargs="+", metavar="TOPIC", help="such as PRICE:BTCUSDT or session:desk"
    )
    parser.add_argument(
        "--interval",
        type=int,
        choices=_INTERVALS,
        default=0,
        metavar="MS",
        help="merge updates: 0, 100, 250 or 1000 ms (default 0)",
    )
    parser.add_argument("--levels", type=count, default=10, help="of a ladder (default 10)")
    parser.add_argument("--lines", action="store_true", help="one line a message, as in a pipe")
    parser.add_argument("--count", type=count, help="stop after so many messages; implies --lines")
    add_target(parser)
    add_json(parser, "each message")
    parser.set_defaults(run_tool=_run)


async def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    target = target_of(arguments, environ)
    topics = [each for each in arguments.topics if not each.startswith(_SESSION)]
    sessions = [each[len(_SESSION) :] for each in arguments.topics if each.startswith(_SESSION)]
    if any(not each for each in sessions):
        raise UsageError("name the session: session:ID")
    async with target.client() as client:
        as_lines = arguments.json or arguments.lines or arguments.count is not None
        if not as_lines and is_interactive():
            from client_sdk.tools.live import show

            await show(client, topics, sessions, arguments.interval, arguments.levels)
        else:
            await _print_lines(client, topics, sessions, arguments)
    return 0


Item = MarketMessage | SessionMessage | Gap


async def _print_lines(
    client: Client, topics: list[str], sessions: list[str], arguments: argparse.Namespace
) -> None:
    remaining: int | None = arguments.count
    client.on_state(_print_state)
    async for item in _merged(client, topics, sessions, arguments.interval):
        # Flushed at once: the reader of a pipe acts on each message.
        print(_json_line(item) if arguments.json else _text_line(item), flush=True)
        if remaining is not None:
            remaining -= 1
            if not remaining:
                return


async def _merged(
    client: Client, topics: list[str], sessions: list[str], interval_ms: int
) -> AsyncIterator[Item]:
    """The messages of all topics and sessions, as they come."""
    items: asyncio.Queue[Item] = asyncio.Queue(maxsize=1000)

    async def read_market() -> None:
        async for item in client.market.stream(*topics, interval_ms=interval_ms):
            await items.put(item)

    async def read_session(session_id: str) -> None:
        async with client.session.join(session_id) as session:
            async for item in session.messages():
                await items.put(item)

    readers = [asyncio.create_task(read_session(each), name=f"tail-{each}") for each in sessions]
    if topics:
        readers.append(asyncio.create_task(read_market(), name="tail-market"))
    try:
        while True:
            next_item = asyncio.create_task(items.get(), name="tail-next")
            done, _ = await asyncio.wait({next_item, *readers}, return_when=asyncio.FIRST_COMPLETED)
            if next_item in done:
                yield next_item.result()
                continue
            next_item.cancel()
            for reader in done:
                # A reader only ends by an error.
                reader.result()
            return
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def _print_state(state: ClientState, reason: FloorcastError | None) -> None:
    if state is ClientState.OFFLINE:
        print(f"offline: {reason}", file=sys.stderr)
    elif state is ClientState.ONLINE:
        print("online", file=sys.stderr)


def _json_line(item: Item) -> str:
    if isinstance(item, Gap):
        missing = {"from": item.missed_from, "to": item.missed_to, "reason": item.reason.value}
        return json.dumps({"topic": item.topic, "epoch": item.epoch, "missing": missing})
    body = item.model_dump(mode="json", exclude_unset=True)
    if isinstance(item, MarketMessage):
        body = {"topic": item.topic, **body}
    return json.dumps(body, ensure_ascii=False)


def _text_line(item: Item) -> str:
    if isinstance(item, Gap):
        last = "?" if item.missed_to is None else item.missed_to
        return f"{item.topic} missing {item.missed_from}-{last} ({item.reason.value})"
    body = item.model_dump(mode="json", exclude_unset=True)
    where = item.topic if isinstance(item, MarketMessage) else f"{item.session_id} {item.user_id}"
    data = json.dumps(body.get("data"), ensure_ascii=False)
    return f"{time_text(item.ts)} {where} #{item.seq} {data}"
