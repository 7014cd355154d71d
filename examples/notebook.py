"""Reads trades into a DataFrame, without await; the cells run in a notebook too.

pip install 'floorcast[data]'
python examples/notebook.py http://127.0.0.1:8000 TOKEN [FILE]
"""

# %% Connect. In a notebook, write the URL and the token as text instead of `sys.argv`.
import sys
from itertools import islice

from floorcast import SyncClient
from floorcast.data import to_dataframe

url, token = sys.argv[1:3]
path = (sys.argv[3:] or ["trades.parquet"])[0]
client = SyncClient(url, token=token).start()

# %% The current price, and the best levels of the book.
tick = next(client.market.prices("BTCUSDT"))
print(tick.symbol, tick.data.last)
with client.market.book("BTCUSDT") as book:
    print(book.status, book.best_bid, book.best_ask, book.mid)

# %% The next twenty trade messages, a row for each trade.
frame = to_dataframe(islice(client.market.trades("BTCUSDT", "ETHUSDT"), 20))
print(frame[~frame["gap"]].groupby(["topic", "side"])["qty"].agg(["count", "sum"]))

# %% Save them.
frame.to_parquet(path)
print(f"{len(frame)} rows are in {path}")

# %% Close the client, which ends its thread.
client.close()
