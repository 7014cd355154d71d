"""Files as a live market: the same streams and books, for backtests."""

from client_sdk.replay.files import read_messages
from client_sdk.replay.market import Replay, ReplayMarket
from client_sdk.replay.tape import ReplayStuck

__all__ = ["Replay", "ReplayMarket", "ReplayStuck", "read_messages"]
