// A stock client follows the simulated market: every book by its checksum, every trade once.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, test } from "node:test";
import { io } from "socket.io-client";
import { Book } from "./kit/book.mjs";

const { FLOORCAST_MARKET_URL: url, FLOORCAST_MARKET_TOKEN: token } = process.env;
const SECONDS = Number(process.env.FLOORCAST_MARKET_SECONDS ?? 3);
const opened = [];

after(() => opened.forEach((socket) => socket.disconnect()));

test(`a hundred symbols with three streams each are followed for ${SECONDS} s`, async () => {
  const socket = io(`${url}/market`, { forceNew: true, auth: { token }, transports: ["websocket"] });
  opened.push(socket);
  await once(socket, "connect");
  const symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD"];
  for (let n = 5; n <= 100; n++) symbols.push(`SYM${String(n).padStart(3, "0")}USDT`);
  const topics = symbols.flatMap((symbol) => ["PRICE", "ORDERBOOK", "TRADES"].map((s) => `${s}:${symbol}`));
  const books = new Map(symbols.map((symbol) => [symbol, new Book()]));
  const seen = new Map(), counts = { PRICE: 0, ORDERBOOK: 0, TRADES: 0 };
  const faults = [];
  const hear = (message) => {
    try {
      const topic = `${message.stream}:${message.symbol}`;
      assert.equal(message.prev, seen.get(topic), topic);
      seen.set(topic, message.seq);
      counts[message.stream]++;
      if (message.stream === "ORDERBOOK") books.get(message.symbol).take(message);
    } catch (fault) {
      faults.push(fault);
    }
  };
  // Half of them paced: their changes come merged, and lead to the same books.
  for (const event of ["price", "orderbook", "trades"]) socket.on(event, hear);
  // In the callback, not behind an await: messages may come in the same bytes as the answer.
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
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  assert.deepEqual(faults.slice(0, 3), []);
  let compared = 0;
  const compare = (reply) => {
    for (const [topic, { snapshot }] of Object.entries(reply.topics)) {
      // What did not fit into the answer comes as a message of its own. And a paced book may
      // stand further back than the server's.
      if (snapshot === null || seen.get(topic) !== snapshot.seq) continue;
      assert.equal(books.get(topic.slice(10)).checksum(), snapshot.data.checksum, topic);
      compared++;
    }
  };
  const all = topics.filter((topic) => topic.startsWith("ORDERBOOK"));
  await new Promise((resolve, reject) => {
    socket.emit("subscribe", { topics: all }, (reply) => {
      try { resolve(compare(reply)); } catch (fault) { reject(fault); }
    });
  });
  assert.ok(compared > 10, `${compared} books were compared`);
  assert.ok(counts.ORDERBOOK > 20 * SECONDS, JSON.stringify(counts));
  assert.ok(counts.PRICE > 20 * SECONDS && counts.TRADES > 5 * SECONDS, JSON.stringify(counts));
  console.log(JSON.stringify(counts));
});
