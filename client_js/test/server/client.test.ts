import { afterEach, expect, it } from "vitest";
import type { AnyMessage, Gap } from "../../src/index.js";
import { closeAll, open, Proxy, token, until, urls } from "./kit.js";

const PRICE = { bid: "1.00", ask: "1.02", last: "1.01", volume: "5" };
const BOOK = { bids: [["10.0", "1"]], asks: [["10.5", "5"]] };
const trade = (id: number) => ({ trades: [{ id, price: "1", qty: "2", side: "buy", ts: id }] });
let number = 0;
/** A symbol that no other test uses. */
const fresh = () => `T${(number += 1)}`;

afterEach(closeAll);

it("shows prices, and what a publisher sends next", async () => {
  const [desk, ann, symbol] = [open("desk"), open("ann"), fresh()];
  await desk.market.publish({ topic: `PRICE:${symbol}`, data: PRICE });
  const price = ann.market.price(symbol);
  expect((await until(price, ({ status }) => status === "live")).data).toEqual(PRICE);
  const release = price.subscribe(() => {});
  await desk.market.publish({ topic: `PRICE:${symbol}`, data: { ...PRICE, last: "2" } });
  const { ageMs } = await until(price, ({ data }) => data?.last === "2");
  expect(ageMs).toBeLessThan(2_000);
  release();
});

it("keeps a book through hundreds of changes, with the server's checksums", async () => {
  const [desk, ann, symbol] = [open("desk"), open("ann"), fresh()];
  const topic = `ORDERBOOK:${symbol}`;
  await desk.market.publish({ topic, data: BOOK, type: "snapshot" });
  const book = ann.market.book(symbol);
  const release = book.subscribe(() => {});
  await until(book, ({ status }) => status === "live");
  for (let round = 0; round < 10; round += 1) {
    await desk.market.publish(
      ...Array.from({ length: 40 }, (_, index) => {
        const price = (9 + ((round * 7 + index * 13) % 99) / 100).toFixed(2);
        return { topic, data: { bids: [[price, `${index % 3}`]], asks: [] } };
      }),
    );
  }
  await desk.market.publish({ topic, data: { bids: [], asks: [["99.5", "7"]] } });
  const view = await until(book, ({ asks }) => asks.at(-1)?.[0] === "99.5");
  expect(view).toMatchObject({ status: "live", resyncs: 0 });
  expect(view.bids.length).toBeGreaterThan(20);
  release();
});

it("misses no trade and repeats none over cuts", async () => {
  const [symbol, proxy] = [fresh(), new Proxy(urls()[0] as string)];
  const [desk, ann] = [open("desk"), open("ann", {}, await proxy.start())];
  const seen: unknown[] = [];
  const gaps: Gap[] = [];
  ann.market.subscribe(`TRADES:${symbol}`, {
    message: (message: AnyMessage) => {
      if (message.stream === "TRADES") {
        seen.push(...(message.data.trades ?? []).map((each) => each.id));
      }
    },
    gap: (gap) => void gaps.push(gap),
  });
  await until(ann.connection, ({ state }) => state === "online");
  const tape = ann.market.trades(symbol);
  tape.subscribe(() => {});
  await until(tape, ({ status }) => status === "empty");
  for (let id = 1; id <= 90; id += 1) {
    await desk.market.publish({ topic: `TRADES:${symbol}`, data: trade(id) });
    if (id % 30 === 0) {
      proxy.cut();
      await until(ann.connection, ({ state }) => state === "offline");
    }
  }
  await until(tape, ({ trades }) => trades[0]?.id === 90);
  expect(seen).toEqual(Array.from({ length: 90 }, (_, index) => index + 1));
  expect(gaps).toEqual([]);
  proxy.stop();
});

it("follows a pattern over a cut: no trade is missed, and new symbols appear", async () => {
  const proxy = new Proxy(urls()[0] as string);
  const [desk, ann] = [open("desk"), open("ann", {}, await proxy.start())];
  const [first, second] = ["PAT.A", "PAT.B"];
  const seen: string[] = [];
  const gaps: Gap[] = [];
  await desk.market.publish({ topic: `TRADES:${first}`, data: trade(1) });
  await desk.market.publish({ topic: `PRICE:${first}`, data: PRICE });
  ann.market.subscribe("TRADES:PAT.*", {
    message: ({ symbol, seq }) => void seen.push(`${symbol}${seq}`),
    gap: (gap) => void gaps.push(gap),
  });
  const prices = ann.market.prices("PAT.*");
  prices.subscribe(() => {});
  await until(prices, ({ status }) => status === "live");
  proxy.isDown = true;
  proxy.cut();
  await until(ann.connection, ({ state }) => state === "offline");
  for (let id = 2; id <= 20; id += 1) {
    await desk.market.publish({ topic: `TRADES:${first}`, data: trade(id) });
  }
  proxy.isDown = false;
  await until(prices, ({ status }) => status === "live");
  await desk.market.publish({ topic: `TRADES:${second}`, data: trade(1) });
  await desk.market.publish({ topic: `PRICE:${second}`, data: PRICE });
  const view = await until(prices, (each) => each.prices.length === 2);
  expect(view.prices.map((each) => [each.symbol, each.status])).toEqual([
    [first, "live"],
    [second, "live"],
  ]);
  expect(seen).toEqual([...Array.from({ length: 20 }, (_, each) => `${first}${each + 1}`), `${second}1`]);
  expect(gaps).toEqual([]);
  proxy.stop();
});

it("has its will published once it is gone", async () => {
  const [desk, ann] = [open("desk"), open("ann")];
  const topic = `PRICE:${fresh()}`;
  await ann.market.will([{ topic, data: PRICE }], { afterMs: 50 });
  const price = desk.market.price(topic.slice(6));
  price.subscribe(() => {});
  await until(price, ({ isKnown }) => isKnown === false);
  ann.close();
  expect((await until(price, ({ status }) => status === "live")).data).toEqual(PRICE);
});

it("reports a gap, and goes on, at a server without the history", async () => {
  const [first, second] = urls() as [string, string];
  const [symbol, proxy] = [fresh(), new Proxy(first)];
  const ann = open("ann", {}, await proxy.start());
  await open("desk", {}, first).market.publish({ topic: `TRADES:${symbol}`, data: trade(1) });
  await open("desk", {}, second).market.publish({ topic: `TRADES:${symbol}`, data: trade(2) });
  const tape = ann.market.trades(symbol);
  tape.subscribe(() => {});
  await until(tape, ({ trades }) => trades.length === 1);
  proxy.cut(second);
  const { gaps } = await until(tape, (view) => view.gaps.length === 1);
  expect(gaps[0]).toMatchObject({ topic: `TRADES:${symbol}`, missedFrom: 2, missedTo: null });
  proxy.stop();
});

it("is offline while the server is away, and comes back by itself", async () => {
  const [symbol, proxy] = [fresh(), new Proxy(urls()[0] as string)];
  const ann = open("ann", {}, await proxy.start());
  await open("desk").market.publish({ topic: `PRICE:${symbol}`, data: PRICE });
  const price = ann.market.price(symbol);
  price.subscribe(() => {});
  await until(price, ({ status }) => status === "live");
  proxy.isDown = true;
  proxy.cut();
  const lost = await until(ann.connection, ({ state, attempt }) => state === "offline" && attempt > 0);
  expect(lost.error?.code).toBe("client.offline");
  expect(price.get().status).toBe("offline");
  proxy.isDown = false;
  await until(price, ({ status }) => status === "live");
  proxy.stop();
});

it("chats: history, presence, typing, and a send that survives a cut", async () => {
  const proxy = new Proxy(urls()[0] as string);
  const [ann, bob] = [open("ann", {}, await proxy.start()), open("bob")];
  const id = `room:${fresh()}`;
  const [hers, his] = [ann.session(id), bob.session(id)];
  his.open();
  await his.send({ text: "first" });
  hers.open();
  const joined = await until(hers, ({ messages }) => messages.length === 1);
  expect(joined.participants.map((each) => each.user_id).sort()).toEqual(["ann", "bob"]);
  his.typing();
  await until(hers, ({ typing }) => typing.includes("bob"));
  proxy.cut();
  const sent = hers.send({ text: "second" });
  await his.send({ text: "third" });
  await sent;
  const { messages } = await until(his, (view) => view.messages.length === 3);
  expect((await until(hers, (view) => view.messages.length === 3)).messages).toEqual(messages);
  expect(messages.map((each) => each.seq)).toEqual([1, 2, 3]);
  ann.close();
  // At once, not after the grace time of a lost connection.
  await until(his, ({ participants }) => participants.length === 1);
  proxy.stop();
});

it("renews one token for both namespaces, and is never disconnected", async () => {
  let calls = 0;
  // So short that the server announces the expiry at once.
  const ann = open("ann", {
    token: () => {
      calls += 1;
      return token("ann", calls === 1 ? 4 : 600);
    },
  });
  const states: string[] = [];
  ann.connection.subscribe(() => states.push(ann.connection.get().state));
  ann.market.price(fresh()).subscribe(() => {});
  ann.session(`room:${fresh()}`).open();
  await until(ann.connection, ({ market, session }) => market === "online" && session === "online");
  states.length = 0;
  // The expiry and the server's grace time after it.
  await new Promise((resolve) => setTimeout(resolve, 6_500));
  expect(calls).toBe(2);
  expect(states).not.toContain("offline");
  expect(ann.connection.get().state).toBe("online");
});

it("is refused with the server's code", async () => {
  const ann = open("ann", { token: "no token" });
  ann.market.price("A").subscribe(() => {});
  const { error } = await until(ann.connection, ({ state }) => state === "refused");
  expect(error?.code).toBe("auth.invalid");
  const desk = open("desk");
  const refused = desk.market.publish({ topic: "PRICE:?", data: PRICE });
  await expect(refused).rejects.toMatchObject({ code: "topic.unknown" });
});

it("keeps a view of a book that is never deeper than asked", async () => {
  const [desk, ann, symbol] = [open("desk"), open("ann"), fresh()];
  const topic = `ORDERBOOK:${symbol}`;
  const bids = Array.from({ length: 20 }, (_, index) => [`${50 - index}`, "1"]);
  await desk.market.publish({ topic, data: { bids, asks: [["60", "1"]] }, type: "snapshot" });
  const book = ann.market.book(symbol, { depth: 5 });
  book.subscribe(() => {});
  expect((await until(book, ({ status }) => status === "live")).bids).toHaveLength(5);
  await desk.market.publish({ topic, data: { bids: [["50", "0"]], asks: [] } });
  const { bids: five, resyncs } = await until(book, (view) => view.bids[0]?.[0] === "49");
  expect([five.at(-1), five.length, resyncs]).toEqual([["45", "1"], 5, 0]);
});

it("lists instruments, and follows what a publisher adds", async () => {
  const [desk, ann, symbol] = [open("desk"), open("ann"), fresh()];
  const listed = ann.market.instruments({ match: "T*" });
  listed.subscribe(() => {});
  await until(listed, ({ status }) => status === "live");
  expect(listed.get().instruments.map((each) => each.symbol)).not.toContain(symbol);
  await desk.market.publish({ topic: `PRICE:${symbol}`, data: PRICE });
  await until(listed, ({ instruments }) => instruments.some((each) => each.symbol === symbol));
});

it("shows candles of trades, and fetches them", async () => {
  const [desk, ann, symbol] = [open("desk"), open("ann"), fresh()];
  const topic = `TRADES:${symbol}`;
  const at = (id: number, price: string) => ({
    trades: [{ id, price, qty: "2", side: "buy", ts: Date.now() }],
  });
  await desk.market.publish({ topic, data: at(1, "1.5") });
  const candles = ann.market.candles(symbol, "1d");
  candles.subscribe(() => {});
  await until(candles, ({ bars }) => bars.at(-1)?.c === "1.5");
  await desk.market.publish({ topic, data: at(2, "2.5") });
  const { bars } = await until(candles, (view) => view.bars.at(-1)?.c === "2.5");
  expect(bars.at(-1)).toMatchObject({ o: "1.5", h: "2.5", v: "4", n: 2, closed: false });
  expect(await ann.market.fetchCandles(symbol, "1d")).toEqual(bars);
});

it("works over polling alone", async () => {
  const [symbol, ann] = [fresh(), open("ann", { transports: ["polling"] })];
  await open("desk").market.publish({ topic: `PRICE:${symbol}`, data: PRICE });
  await until(ann.market.price(symbol), ({ status }) => status === "live");
});
