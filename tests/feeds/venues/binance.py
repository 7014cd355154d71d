"""A local Binance: its streams of spot markets with sequence numbers, and its REST."""

import json

from aiohttp import web

from tests.feeds.venues.venue import LocalVenue


class BinanceVenue(LocalVenue):
    """One spot market and one future, which only REST has."""

    def __init__(self) -> None:
        super().__init__()
        self.update_id = 100
        # As REST has them.
        self.trades: list[dict[str, object]] = []
        self.bids = {f"{100 - n}.00": f"{n + 1}.000" for n in range(20)}
        self.asks = {f"{101 + n}.00": f"{n + 1}.500" for n in range(20)}

    @property
    def options(self) -> dict[str, object]:
        # ccxt tells spot streams by this word in the address.
        socket = self.url.replace("http", "ws")
        sockets = {"spot": f"{socket}/stream/ws", "linear": f"{socket}/future/ws"}
        api = {"public": f"{self.url}/api/v3", "fapiPublic": f"{self.url}/fapi/v1"}
        return {
            "urls": {"api": {**api, "ws": sockets}},
            "options": {"fetchMarkets": {"types": ["spot", "linear"]}},
        }

    def answer(self, path: str, query: dict[str, str]) -> object:
        if path.endswith("/depth"):
            return {
                "lastUpdateId": self.update_id,
                "bids": list(map(list, self.bids.items())),
                "asks": list(map(list, self.asks.items())),
            }
        if path.endswith("/trades"):
            # The venue refuses a parameter that it does not know.
            assert query.keys() == {"symbol", "limit"}
            return self.trades[-int(query["limit"]) :]
        market = {
            "symbol": "BTCUSDT",
            "status": "TRADING",
            "baseAsset": "BTC",
            "quoteAsset": "USDT",
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
                {"filterType": "LOT_SIZE", "stepSize": "0.00100000"},
            ],
        }
        if path.startswith("/fapi"):
            market |= {"contractType": "PERPETUAL", "marginAsset": "USDT", "pair": "BTCUSDT"}
        return {"symbols": [market]}

    def on_message(self, socket: web.WebSocketResponse, message: dict[str, object]) -> None:
        params = message["params"]
        assert isinstance(params, list)
        if message["method"] == "SUBSCRIBE":
            self.sockets[socket].update(params)
        else:
            self.sockets[socket].difference_update(params)
        self.send_to(socket, json.dumps({"result": None, "id": message["id"]}))

    def set_bid(self, price: str, quantity: str, *, lose: bool = False) -> None:
        """Change a level; if the update is lost, the next one leaves a gap."""
        self.update_id += 1
        self.bids[price] = quantity
        update = {"e": "depthUpdate", "E": 1_700_000_000_000, "s": "BTCUSDT", "a": []}
        numbers = {"U": self.update_id, "u": self.update_id}
        if not lose:
            text = json.dumps({**update, **numbers, "b": [[price, quantity]]})
            self.send("btcusdt@depth@100ms", text)

    def trade(self, number: int, ts_ms: int) -> None:
        """Make a trade and send it."""
        kept = {"id": number, "price": "100.50000000", "qty": "0.25000000", "time": ts_ms}
        self.trades.append({**kept, "isBuyerMaker": True})
        deal = {"e": "trade", "E": ts_ms, "T": ts_ms, "s": "BTCUSDT", "t": number}
        text = json.dumps({**deal, "p": "100.50000000", "q": "0.25000000", "m": True})
        self.send("btcusdt@trade", text)

    def tick(self, last: str) -> None:
        """Send a ticker."""
        ticker = {"e": "24hrTicker", "E": 1_700_000_000_000, "s": "BTCUSDT", "c": last}
        prices = {"b": "100.00000000", "a": "101.00000000", "h": "102.0", "l": "99.0", "v": "12.5"}
        self.send("btcusdt@ticker", json.dumps({**ticker, **prices}))
