"""Messages as tables, Arrow and Parquet, and files as a market; needs `floorcast[data]`."""

from client_sdk.data import (
    MissingExtra,
    MixedMessages,
    ParquetSink,
    bars_to_dataframe,
    to_dataframe,
    to_table,
)
from client_sdk.replay import Replay, ReplayMarket, ReplayStuck, read_messages

__all__ = [
    "MissingExtra",
    "MixedMessages",
    "ParquetSink",
    "Replay",
    "ReplayMarket",
    "ReplayStuck",
    "bars_to_dataframe",
    "read_messages",
    "to_dataframe",
    "to_table",
]
