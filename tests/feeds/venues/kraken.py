"""A local Kraken: the WebSocket protocol v2 with its book checksum, and its REST."""

import json
import zlib
from datetime import UTC, datetime

from aiohttp import web

from tests.feeds.venues.venue import LocalVenue

_LEVELS = 10
_TRADES = 50

# By symbol: the pair's id, base, quote, and the decimals of its prices.
PAIRS = {
    "BTC/USD": ("XXBTZUSD", "XXBT", "ZUSD", 1),
    "ETH/USD": ("XETHZUSD", "XETH", "ZUSD", 2),
}


class KrakenVenue(LocalVenue):
    """Two markets; what they send is text, with the exact digits of the venue."""

    def __init__(self) -> None:
        super().__init__()
        self.books: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        self.trades: dict[str, list[dict[str, object]]] = {symbol: [] for symbol in PAIRS}
        self.received: list[dict[str, object]] = []
        self.status = "online"
        for symbol, (_, _, _, decimals) in PAIRS.items():
            bids = {f"{100 - n:.{decimals}f}": f"{n + 1}.00000000" for n in range(_LEVELS)}
            asks = {f"{101 + n:.{decimals}f}": f"{n + 1}.50000000" for n in range(_LEVELS)}
            self.books[symbol] = (bids, asks)

    @property
    def options(self) -> dict[str, object]:
        socket = self.url.replace("http", "ws") + "/v2"
        return {"urls": {"api": {"public": self.url, "ws": {"publicV2": socket}}}}

    def answer(self, path: str, query: dict[str, str]) -> object:
        if path.endswith("/Trades"):
            result: object = self._trades_since(query)
        elif path.endswith("/Assets"):
            names = {name for _, base, quote, _ in PAIRS.values() for name in (base, quote)}
            currency = {"aclass": "currency", "decimals": 10, "display_decimals": 5}
            result = {
                name: {**currency, "altname": name[1:], "status": "enabled"} for name in names
            }
        else:
            result = {pair[0]: self._pair(symbol) for symbol, pair in PAIRS.items()}
        return {"error": [], "result": result}

    def _trades_since(self, query: dict[str, str]) -> dict[str, object]:
        [symbol] = [each for each, pair in PAIRS.items() if pair[0] == query["pair"]]
        since, count = float(query["since"]), int(query["count"])
        times = [_seconds(str(each["timestamp"])) for each in self.trades[symbol]]
        decimals = PAIRS[symbol][3]
        trades = [
            [f"{each['price']:.{decimals}f}", "0.25000000", ts, "b", "m", "", each["trade_id"]]
            for ts, each in zip(times, self.trades[symbol], strict=True)
            if ts >= since
        ][:count]
        return {query["pair"]: trades, "last": "1"}

    def _pair(self, symbol: str) -> dict[str, object]:
        _, base, quote, decimals = PAIRS[symbol]
        return {
            "altname": f"{base[1:]}{quote[1:]}",
            "wsname": f"{base[1:]}/{quote[1:]}",
            "base": base,
            "quote": quote,
            "pair_decimals": decimals,
            "lot_decimals": 8,
            "fees": [[0, 0.4]],
            "fees_maker": [[0, 0.25]],
            "leverage_buy": [],
            "ordermin": "0.00005",
            "status": self.status,
        }

    def on_message(self, socket: web.WebSocketResponse, message: dict[str, object]) -> None:
        self.received.append(message)
        method, request_id = message["method"], message.get("req_id")
        if method == "ping":
            pong = json.dumps({"method": "pong", "req_id": request_id})
            self.send_to(socket, pong, is_pong=True)
            return
        params = message["params"]
        assert isinstance(params, dict)
        for symbol in params["symbol"]:
            key = f"{params['channel']} {symbol}"
            reply = {"method": method, "req_id": request_id, "symbol": symbol}
            if method == "unsubscribe":
                self.sockets[socket].discard(key)
            elif key in self.sockets[socket]:
                error = {"error": "Already subscribed", "success": False}
                self.send_to(socket, json.dumps({**reply, **error}))
                continue
            self.send_to(socket, json.dumps({**reply, "success": True}))
            if method == "subscribe":
                self.sockets[socket].add(key)
                self._send_snapshot(socket, params["channel"], symbol)

    def _send_snapshot(self, socket: web.WebSocketResponse, channel: str, symbol: str) -> None:
        if channel == "book":
            bids, asks = (dict(side) for side in self.best(symbol))
            self.send_to(socket, self._book("snapshot", symbol, bids, asks))
        elif channel == "trade":
            last = self.trades[symbol][-_TRADES:]
            if last:
                self.send_to(socket, _message("trade", "snapshot", *map(json.dumps, last)))

    def best(self, symbol: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The ten best bids and asks."""
        bids, asks = self.books[symbol]
        return (
            sorted(bids.items(), key=_price, reverse=True)[:_LEVELS],
            sorted(asks.items(), key=_price)[:_LEVELS],
        )

    def checksum(self, symbol: str) -> int:
        """The CRC32 over the texts of the ten best levels, asks first."""
        bids, asks = self.best(symbol)
        texts = [_digits(price) + _digits(quantity) for price, quantity in asks + bids]
        return zlib.crc32("".join(texts).encode())

    def _book(self, kind: str, symbol: str, bids: dict[str, str], asks: dict[str, str]) -> str:
        checksum = self.checksum(symbol)
        return _message(
            "book",
            kind,
            f'{{"symbol": "{symbol}", "bids": {_levels(bids)}, "asks": {_levels(asks)}, '
            f'"checksum": {checksum}, "timestamp": "{_time(1_700_000_000_000)}"}}',
        )

    def set_level(
        self, symbol: str, price: str, quantity: str, *, is_bid: bool = True, lose: bool = False
    ) -> None:
        """Change a level of the book and send it; clients then have a wrong book if it is lost."""
        price = f"{float(price):.{PAIRS[symbol][3]}f}"
        side = self.books[symbol][0 if is_bid else 1]
        if quantity.strip("0.") == "":
            side.pop(price, None)
        else:
            side[price] = quantity
        if not lose:
            changed: tuple[dict[str, str], dict[str, str]] = ({price: quantity}, {})
            bids, asks = changed if is_bid else changed[::-1]
            self.send(f"book {symbol}", self._book("update", symbol, bids, asks))

    def trade(self, symbol: str, number: int, ts_ms: int, price: str = "100.5") -> None:
        """Make a trade and send it."""
        trade = {
            "symbol": symbol,
            "side": "buy",
            "price": float(price),
            "qty": 0.25,
            "ord_type": "market",
            "trade_id": number,
            "timestamp": _time(ts_ms),
        }
        self.trades[symbol].append(trade)
        self.send(f"trade {symbol}", _message("trade", "update", json.dumps(trade)))

    def tick(self, symbol: str, bid: str, ask: str, last: str) -> None:
        """Send a ticker."""
        text = (
            f'{{"symbol": "{symbol}", "bid": {bid}, "bid_qty": 1.0, "ask": {ask}, "ask_qty": 2.0, '
            f'"last": {last}, "volume": 2158.32346723, "vwap": 100.1, "low": 99.5, "high": 102.0, '
            '"change": 1.0, "change_pct": 1.0}'
        )
        self.send(f"ticker {symbol}", _message("ticker", "update", text))


def _message(channel: str, kind: str, *data: str) -> str:
    return f'{{"channel": "{channel}", "type": "{kind}", "data": [{", ".join(data)}]}}'


def _levels(side: dict[str, str]) -> str:
    levels = (f'{{"price": {price}, "qty": {quantity}}}' for price, quantity in side.items())
    return f"[{', '.join(levels)}]"


def _price(level: tuple[str, str]) -> float:
    return float(level[0])


def _digits(text: str) -> str:
    return text.replace(".", "").lstrip("0")


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _time(ts_ms: int) -> str:
    text = datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
