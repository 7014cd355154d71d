"""Messages as tables, Arrow and Parquet; needs `floorcast[data]`."""

from client_sdk.data import (
    MissingExtra,
    MixedMessages,
    ParquetSink,
    bars_to_dataframe,
    to_dataframe,
    to_table,
)

__all__ = [
    "MissingExtra",
    "MixedMessages",
    "ParquetSink",
    "bars_to_dataframe",
    "to_dataframe",
    "to_table",
]
