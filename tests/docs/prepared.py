"""What the Python snippets of a page take for granted: objects of the reader's own program."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import floorcast
from floorcast.server import SERVER, Settings, load_settings
from server.brokers import MemoryBroker, MemoryPresence
from tests.kit.server.demo import Demo
from tests.kit.server.in_process import running

Names = dict[str, Any]


async def prepare(page: str, server: Demo, stack: AsyncExitStack) -> Names:
    """The names that a page's first snippet finds."""
    make = _PAGES.get(page)
    return {"TOKEN": server.tokens["ops"], **(await make(server, stack) if make else {})}


async def _python_client(server: Demo, stack: AsyncExitStack) -> Names:
    client = floorcast.Client(server.url, token=server.tokens["ops"])
    return {"client": await stack.enter_async_context(client)}


async def _protocol(server: Demo, stack: AsyncExitStack) -> Names:
    return {"bids": [("10.0", "1"), ("9.5", "2")], "asks": [("10.5", "5")]}


async def _feeds(server: Demo, stack: AsyncExitStack) -> Names:
    node = await stack.enter_async_context(running())
    return {"app": {SERVER: node.server}}


async def _embedding(server: Demo, stack: AsyncExitStack) -> Names:
    async def find(*credentials: str) -> SimpleNamespace:
        return SimpleNamespace(id="ann", org="default", expires_at=0.0)

    store = SimpleNamespace(find=find)
    return {
        "SECRET": _SECRET,
        "settings": _settings(),
        "keys": store,
        "logins": store,
        "MyBroker": MemoryBroker,
        "MyPresence": MemoryPresence,
    }


def _settings() -> Settings:
    return load_settings(flags={"auth.secret": _SECRET})


_SECRET = "a secret for documents that is long enough"
_PAGES: dict[str, Callable[[Demo, AsyncExitStack], Awaitable[Names]]] = {
    "docs/embedding.md": _embedding,
    "docs/feeds.md": _feeds,
    "docs/market.md": _python_client,
    "docs/protocol.md": _protocol,
    "docs/sdk.md": _python_client,
}
