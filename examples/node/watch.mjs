// Prints prices, and every trade: none is skipped, also over reconnects.
//
//     floorcast serve --demo
//     FLOORCAST_TOKEN=... node watch.mjs BTCUSDT ETHUSDT
import { Client } from "@floorcast/client";

const { FLOORCAST_URL = "http://127.0.0.1:8000", FLOORCAST_TOKEN } = process.env;
const symbols = process.argv.length > 2 ? process.argv.slice(2) : ["BTCUSDT"];
const client = new Client(FLOORCAST_URL, { token: FLOORCAST_TOKEN });

client.connection.subscribe(() => {
  const { state, error } = client.connection.get();
  console.error(state, error?.message ?? "");
});
for (const symbol of symbols) {
  const price = client.market.price(symbol, { intervalMs: 1000 });
  price.subscribe(() => {
    const { status, data } = price.get();
    console.log(symbol, status, data?.last ?? "-");
  });
  client.market.subscribe(`TRADES:${symbol}`, {
    message: ({ data }) => data.trades.forEach((each) => console.log(symbol, each.side, each.price)),
    gap: ({ missedFrom, missedTo }) => console.log(symbol, "lost", missedFrom, missedTo),
  });
}
