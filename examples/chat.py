"""Talks in a session with the stock Socket.IO client for Python: what you type, the others read.

python examples/chat.py http://127.0.0.1:8000 TOKEN SESSION

The token needs the scope `session:join`; the demo prints one, the trader's.
"""

import asyncio
import contextlib
import sys
from typing import Any

import socketio


async def main(url: str, token: str, session_id: str) -> None:
    """Join, print what is said, and send each line of the standard input."""
    client = socketio.AsyncClient()

    async def message(body: dict[str, Any]) -> None:
        print(f"{body['user_id']}: {body['data'].get('text')}", flush=True)

    async def user_joined(body: dict[str, Any]) -> None:
        print(f"* {body['user_id']} came, {body['participant_count']} are here", flush=True)

    async def user_left(body: dict[str, Any]) -> None:
        print(f"* {body['user_id']} left, {body['participant_count']} are here", flush=True)

    for handler in (message, user_joined, user_left):
        client.on(handler.__name__, handler, namespace="/session")
    auth = {"token": token, "session_id": session_id, "recovery": False}
    await client.connect(url, namespaces=["/session"], auth=auth)
    who = await client.call("participants", {"session_id": session_id}, namespace="/session")
    print(f"* {who['participant_count']} are here", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        said = {"session_id": session_id, "data": {"text": line.strip()}}
        reply = await client.call("send", said, namespace="/session")
        if not reply["ok"]:
            print("*", reply["error"]["message"], flush=True)
    await client.disconnect()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:4]))
