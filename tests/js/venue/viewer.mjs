// A stock client of one symbol of a venue. Prints each message as a line, and verifies the book.
import { io } from "socket.io-client";
import { Book } from "../kit/book.mjs";

const { FLOORCAST_URL: url, FLOORCAST_TOKEN: token, FLOORCAST_SYMBOL: symbol } = process.env;
const STREAMS = ["PRICE", "TRADES", "ORDERBOOK"];
const book = new Book();
const print = (line) => console.log(JSON.stringify(line));

function take(stream, { type, data }) {
  if (stream === "ORDERBOOK") {
    book.take({ type, data });
    print({ stream, type, bid: [...book.bids].sort((a, b) => b[0] - a[0])[0] });
  } else if (stream === "PRICE") {
    print({ stream, last: data.last });
  } else {
    data.trades.forEach(({ id }) => print({ stream, id }));
  }
}

const socket = io(`${url}/market`, { auth: { token } });
for (const stream of STREAMS) socket.on(stream.toLowerCase(), (message) => take(stream, message));
socket.on("status", ({ stream, state }) => print({ stream, state }));
socket.on("connect", async () => {
  const topics = STREAMS.map((stream) => `${stream}:${symbol}`);
  const reply = await socket.emitWithAck("subscribe", { topics });
  const { snapshot } = reply.topics[topics[2]];
  if (snapshot) take("ORDERBOOK", snapshot);
  print({ stream: "subscribed", ok: reply.ok });
});
