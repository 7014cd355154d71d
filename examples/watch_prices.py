"""Watches prices with the stock Socket.IO client for Python.

python examples/watch_prices.py http://127.0.0.1:8000 TOKEN [SYMBOL ...]
"""

import asyncio
import contextlib
import sys
from typing import Any

import socketio


async def main(url: str, token: str, symbols: list[str]) -> None:
    """Subscribe and print until Ctrl-C."""
    client = socketio.AsyncClient()

    async def price(message: dict[str, Any]) -> None:
        print(message["seq"], message["symbol"], message["data"]["last"])

    async def goodbye(message: dict[str, Any]) -> None:
        print("the server says goodbye:", message["message"])

    async def connect() -> None:
        # Again after every reconnect: subscriptions end with their connection.
        topics = [f"PRICE:{symbol}" for symbol in symbols]
        reply = await client.call("subscribe", {"topics": topics}, namespace="/market")
        for topic, state in reply["topics"].items():
            print(topic, state["status"], state.get("error", {}).get("message", ""))

    client.on("price", price, namespace="/market")
    client.on("goodbye", goodbye, namespace="/market")
    client.on("connect", connect, namespace="/market")
    await client.connect(url, namespaces=["/market"], auth={"token": token, "recovery": False})
    await client.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:] or ["BTCUSDT", "ETHUSDT"]))
