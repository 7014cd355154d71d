"""Writes trades to a Parquet file as they arrive, with a row for each gap.

pip install 'floorcast[data]'
python examples/save_trades.py http://127.0.0.1:8000 TOKEN FILE [COUNT]
"""

import asyncio
import contextlib
import sys

from floorcast import Client
from floorcast.data import ParquetSink

SYMBOLS = ("BTCUSDT", "ETHUSDT")


async def main(url: str, token: str, path: str, count: int) -> None:
    """Write `count` messages, or until Ctrl-C."""
    async with Client(url, token=token) as client, client.market.trades(*SYMBOLS) as trades:
        with ParquetSink(path) as sink:
            async for item in trades:
                sink.add(item)
                count -= 1
                if count == 0:
                    break
    print(f"{sink.row_count} rows are in {path}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int((sys.argv[4:] or ["1000"])[0])))
