// Tests that a stock client follows the simulated market: books by checksum, trades exactly once.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, test } from "node:test";
import { io } from "socket.io-client";
import { Book } from "./kit/book.mjs";

const { FLOORCAST_MARKET_URL: url, FLOORCAST_MARKET_TOKEN: token } = process.env;
const SECONDS = Number(process.env.FLOORCAST_MARKET_SECONDS ?? 3);
const opened = [];

after(() => opened.forEach((socket) => socket.disconnect()));

test(`client follows three streams of 100 symbols for ${SECONDS} s`, async () => {
  const socket = io(`${url}/market`, { forceNew: true, auth: { token }, transports: ["websocket"] });
  opened.push(socket);
  await once(socket, "connect");
  const symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD"];
  for (let n = 5; n <= 100; n++) symbols.push(`SYM${String(n).padStart(3, "0")}USDT`);
  const topics = symbols.flatMap((symbol) => ["PRICE", "ORDERBOOK", "TRADES"].map((s) => `${s}:${symbol}`));
  const books = new Map(symbols.map((symbol) => [symbol, new Book()]));
  const seen = new Map(), counts = { PRICE: 0, ORDERBOOK: 0, TRADES: 0 };
  const errors = [];
  const receive = (message) => {
    try {
      const topic = `${message.stream}:${message.symbol}`;
      assert.equal(message.prev, seen.get(topic), topic);
      seen.set(topic, message.seq);
      counts[message.stream]++;
      if (message.stream === "ORDERBOOK") books.get(message.symbol).take(message);
    } catch (error) {
      errors.push(error);
    }
  };
  // Half of the topics are conflated: their merged updates must lead to the same books.
  for (const event of ["price", "orderbook", "trades"]) socket.on(event, receive);
  // In the callback, not after an await: updates may arrive in the same bytes as the reply.
  const begin = (reply) => {
    assert.equal(reply.ok, true);
    for (const [topic, state] of Object.entries(reply.topics)) {
      assert.equal(state.status, "CONNECTED", topic);
      seen.set(topic, state.seq);
      if (topic.startsWith("ORDERBOOK") && state.snapshot) books.get(topic.slice(10)).take(state.snapshot);
    }
  };
  for (const [some, interval_ms] of [[topics.slice(0, 150), 0], [topics.slice(150), 250]]) {
    await new Promise((resolve) => {
      socket.emit("subscribe", { topics: some, interval_ms }, (reply) => resolve(begin(reply)));
    });
  }
  // Enough updates for these seconds; a busy machine takes longer, up to the test's timeout.
  const isEnough = () =>
    counts.ORDERBOOK > 20 * SECONDS && counts.PRICE > 20 * SECONDS && counts.TRADES > 5 * SECONDS;
  for (const endsAt = Date.now() + SECONDS * 1000; Date.now() < endsAt || !isEnough(); ) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.deepEqual(errors.slice(0, 3), []);
  let compared = 0;
  const compare = (reply) => {
    for (const [topic, { snapshot }] of Object.entries(reply.topics)) {
      // A snapshot too large for the reply comes as a message; a conflated book may be behind.
      if (snapshot === null || seen.get(topic) !== snapshot.seq) continue;
      assert.equal(books.get(topic.slice(10)).checksum(), snapshot.data.checksum, topic);
      compared++;
    }
  };
  const all = topics.filter((topic) => topic.startsWith("ORDERBOOK"));
  await new Promise((resolve, reject) => {
    socket.emit("subscribe", { topics: all }, (reply) => {
      try { resolve(compare(reply)); } catch (error) { reject(error); }
    });
  });
  assert.ok(compared > 10, `${compared} books were compared`);
  console.log(JSON.stringify(counts));
});
