"""Chats in a session: sends each line that you type, and prints what others send.

python examples/chat.py http://127.0.0.1:8000 TOKEN SESSION

The token needs the scope `session:join`; the demo prints one, the trader's.
"""

import asyncio
import contextlib
import sys

from floorcast import (
    Client,
    FloorcastError,
    Gap,
    SessionEvent,
    SessionMessage,
    UserJoined,
    UserLeft,
)


def show_message(message: SessionMessage | Gap) -> None:
    """Print a message, or that some are missing."""
    if isinstance(message, Gap):
        print("* some messages are lost", flush=True)
    else:
        print(f"{message.user_id}: {message.data.get('text')}", flush=True)


def show_event(event: SessionEvent) -> None:
    """Print a join or a leave."""
    if isinstance(event, UserJoined | UserLeft):
        change = "joined" if isinstance(event, UserJoined) else "left"
        print(f"* {event.user_id} {change}, {event.participant_count} in the room", flush=True)


async def main(url: str, token: str, session_id: str) -> None:
    """Join, print messages and events, and send each line of the standard input."""
    async with Client(url, token=token) as client, client.session.join(session_id) as session:
        attendance = await session.participants()
        print(f"* {attendance.participant_count} in the room", flush=True)
        session.on_message(show_message)
        session.on_event(show_event)
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                await session.send({"text": line.strip()})
            except FloorcastError as error:
                print("*", error.message, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:4]))
