"""Checks the checksum of Kraken's books, which ccxt keeps without checking it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ccxt import ChecksumError

from server.feeds.sources.ccxt.checksum import LEVELS, kraken_checksum

_SEND_SECONDS = 5.0


def with_checksum(kind: Any) -> Any:
    """ccxt's class for Kraken, with books that are dropped if their checksum differs."""

    class Checked(kind):  # type: ignore[misc]
        def handle_order_book(self, client: Any, message: Any) -> None:
            data = message["data"][0]
            symbol = data["symbol"]
            if message.get("type") == "update" and symbol not in self.orderbooks:
                self._drop_book(client, symbol, f"an update of {symbol} came before its snapshot")
                return
            super().handle_order_book(client, message)
            book, info = self.orderbooks[symbol], self.market(symbol)["info"]
            computed = kraken_checksum(
                book["bids"][:LEVELS],
                book["asks"][:LEVELS],
                price_decimals=int(info["pair_decimals"]),
                quantity_decimals=int(info["lot_decimals"]),
            )
            if computed != data.get("checksum", computed):
                self._drop_book(client, symbol, f"the checksum of {symbol} differs")

        def _drop_book(self, client: Any, symbol: str, reason: str) -> None:
            """Drop a book as ccxt does at other venues: the next call subscribes again."""
            message_hash = self.get_message_hash("orderbook", None, symbol)
            self.orderbooks.pop(symbol, None)
            # Without a subscription it is dropped already.
            if client.subscriptions.pop(message_hash, None) is not None:
                client.reject(ChecksumError(reason), message_hash)

        async def leave_books(self, symbols: Sequence[str], depth: int | None) -> None:
            """Unsubscribe from books: Kraken sends no snapshot to one that is subscribed."""
            if (client := self.clients.get(self.urls["api"]["ws"]["publicV2"])) is None:
                return
            wanted: dict[str, object] = {"channel": "book", "symbol": list(symbols)}
            if depth is not None:
                wanted["depth"] = depth
            request = {"method": "unsubscribe", "params": wanted, "req_id": self.request_id()}
            async with asyncio.timeout(_SEND_SECONDS):
                await client.send(request)

    return Checked
