"""Opens a venue in ccxt, so that each update that ccxt takes in is reported."""

import zlib
from collections.abc import Mapping
from typing import Any

import aiohttp
import ccxt
import ccxt.pro
from ccxt.async_support.base.ws.cache import ArrayCache
from ccxt.async_support.base.ws.order_book import (
    CountedOrderBook,
    IndexedOrderBook,
    OrderBook,
)

from server.feeds.errors import FeedError
from server.feeds.sources.ccxt.books import exact_book
from server.feeds.sources.ccxt.kraken import with_checksum
from server.feeds.sources.ccxt.options import CcxtOptions
from server.feeds.sources.ccxt.updates import Updates

# ccxt puts another library under aiohttp for all of the process, the clients' connections included.
aiohttp.set_zlib_backend(zlib)

_NOTHING: Mapping[str, Any] = {}
# By the venue: what ccxt lacks.
_WITH_CHECKSUM = {"kraken": with_checksum}


def check_venue(venue: str) -> None:
    """Raise `FeedError` if ccxt does not know this venue, or has no streams of it."""
    if not venue:
        raise FeedError("ccxt needs a venue: ccxt:kraken")
    if venue not in ccxt.pro.exchanges:
        raise FeedError(f"ccxt has no streams of a venue {venue!r}")


def open_exchange(venue: str, options: CcxtOptions, updates: Updates) -> Any:
    """ccxt's object for a venue; you must close it. Raises `FeedError`."""
    kind = getattr(ccxt.pro, venue)
    if options.checksum and venue in _WITH_CHECKSUM:
        kind = _WITH_CHECKSUM[venue](kind)
    exchange = _reporting(kind, updates)(
        {
            "newUpdates": True,
            "enableRateLimit": options.rate_limit,
            "timeout": int(options.timeout_seconds * 1000),
            "options": dict(options.options),
            **({} if options.hostname is None else {"hostname": options.hostname}),
        }
    )
    # ccxt would wait for connections that are closed already.
    exchange.timeout_on_exit = 0
    if options.silent_seconds:
        # A dead connection beside live ones fails after two pings without an answer.
        most = int(options.silent_seconds * 1000 / 3)
        keep_alive = min(exchange.streaming.get("keepAlive", most), most)
        exchange.streaming = {**exchange.streaming, "keepAlive": keep_alive}
    if options.sandbox:
        try:
            exchange.set_sandbox_mode(True)
        except ccxt.NotSupported:
            raise FeedError(f"{venue} has no sandbox") from None
    exchange.urls = exchange.deep_extend(exchange.urls, options.urls)
    return exchange


def _reporting(kind: Any, updates: Updates) -> Any:
    """The class of a venue that keeps exact books and reports what it takes in.

    ccxt's `watch` methods return one update: what arrives before they are called again, or for
    another symbol at the same time, shows only with that symbol's next update.
    """

    class Reporting(kind):  # type: ignore[misc]
        def order_book(self, snapshot: Any = _NOTHING, depth: int | None = None) -> Any:
            return exact_book(OrderBook, snapshot, depth)

        def indexed_order_book(self, snapshot: Any = _NOTHING, depth: int | None = None) -> Any:
            return exact_book(IndexedOrderBook, snapshot, depth)

        def counted_order_book(self, snapshot: Any = _NOTHING, depth: int | None = None) -> Any:
            return exact_book(CountedOrderBook, snapshot, depth)

        def client(self, url: str) -> Any:
            client = super().client(url)
            if "resolve" not in vars(client):
                _report_client(client, updates)
            return client

        def on_error(self, client: Any, error: Any) -> None:
            super().on_error(client, error)
            updates.fail(_as_failure(error))

        def on_close(self, client: Any, error: Any) -> None:
            super().on_close(client, error)
            updates.fail(ConnectionError(f"the venue closed the connection ({error})"))

    return Reporting


def _report_client(client: Any, updates: Updates) -> None:
    """Report what ccxt's client of a connection gives to those that watch."""
    resolve, reject, handle_message = client.resolve, client.reject, client.handle_message

    def on_resolve(result: object, message_hash: object) -> object:
        _report(updates, result)
        return resolve(result, message_hash)

    def on_reject(error: object, message_hash: str | None = None) -> object:
        if isinstance(error, ccxt.InvalidNonce) and message_hash is not None:
            updates.lose_book(message_hash, str(error))
            if message_hash not in client.futures:
                # ccxt would raise it from each call until the next message.
                return error
        return reject(error, message_hash)

    def on_message(message: object) -> None:
        # An exception here would end ccxt's reading of the connection, unnoticed.
        try:
            handle_message(message)
        except Exception as failure:
            updates.fail(failure)

    # ccxt makes the client by itself, of a class for all venues.
    client.resolve, client.reject, client.handle_message = on_resolve, on_reject, on_message


def _as_failure(error: object) -> Exception:
    return error if isinstance(error, Exception) else ConnectionError(str(error))


def _report(updates: Updates, result: object) -> None:
    if isinstance(result, OrderBook):
        updates.add_book(result["symbol"])
    elif isinstance(result, ArrayCache):
        updates.add_trades(result)
    elif isinstance(result, list):
        for each in result:
            _report_ticker(updates, each)
    elif isinstance(result, Mapping):
        if "symbol" in result:
            _report_ticker(updates, result)
        else:
            for each in result.values():
                _report_ticker(updates, each)


def _report_ticker(updates: Updates, ticker: object) -> None:
    if isinstance(ticker, Mapping) and "baseVolume" in ticker:
        updates.add_ticker(ticker)
