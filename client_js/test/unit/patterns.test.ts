import { describe, expect, it } from "vitest";
import type { AnyMessage, Gap, TopicStatus } from "../../src/index.js";
import { topicMatcher } from "../../src/market/match.js";
import { BOOK, connect, pass, PRICE, trade, useManualTime, watch } from "./kit.js";

useManualTime();

const symbolsOf = (messages: AnyMessage[]) => messages.map((each) => each.symbol);

describe("a pattern", () => {
  it("brings the topics that match, and a new one with its snapshot", async () => {
    const { server, client } = connect();
    ["A", "B"].forEach((symbol) => server.publish(`PRICE:${symbol}`, PRICE));
    server.publish("TRADES:A", trade(1));
    const seen: AnyMessage[] = [];
    client.market.subscribe("PRICE:*", { message: (each) => void seen.push(each) });
    await pass();
    expect(symbolsOf(seen)).toEqual(["A", "B"]);
    server.publish("PRICE:MYCOIN", PRICE);
    server.publish("PRICE:MYCOIN", { ...PRICE, last: "2" });
    server.publish("PRICE:A", { ...PRICE, last: "3" });
    await pass();
    expect(symbolsOf(seen)).toEqual(["A", "B", "MYCOIN", "MYCOIN", "A"]);
    expect(seen.map((each) => each.type).slice(2)).toEqual(["snapshot", "update", "update"]);
    expect(server.requestsOf("subscribe").map((each) => each.topics)).toEqual([["PRICE:*"]]);
  });

  it("is subscribed once for all who listen, at the shortest interval", async () => {
    const { server, client } = connect();
    server.publish("PRICE:A", PRICE);
    const slow = client.market.subscribe("PRICE:*", { intervalMs: 1000 });
    await pass();
    expect(server.subscriptions.get("PRICE:A")).toBe(1000);
    const fast = client.market.subscribe("PRICE:*", { intervalMs: 100 });
    await pass();
    expect([server.patterns.get("PRICE:*"), server.subscriptions.get("PRICE:A")]).toEqual([100, 100]);
    fast();
    await pass();
    expect([server.patterns.get("PRICE:*"), server.subscriptions.get("PRICE:A")]).toEqual([1000, 1000]);
    slow();
    await pass();
    expect([[...server.patterns], [...server.subscriptions]]).toEqual([[], []]);
    expect(client.market.subscribed).toEqual([]);
  });

  it("survives a release and a new listener in one turn, as in StrictMode", async () => {
    const { server, client } = connect();
    server.publish("PRICE:A", PRICE);
    watch(client.market.prices()).stop();
    const { values, stop } = watch(client.market.prices());
    await pass();
    stop();
    const again = watch(client.market.prices());
    await pass();
    expect(server.requestsOf("subscribe")).toHaveLength(1);
    expect(server.requestsOf("unsubscribe")).toHaveLength(0);
    expect(values.at(-1)?.prices[0]?.data).toEqual(PRICE);
    server.publish("PRICE:A", { ...PRICE, last: "2" });
    await pass();
    expect(again.values.at(-1)?.prices[0]?.data?.last).toBe("2");
  });

  it("comes back after a cut with the positions of its topics, and misses no trade", async () => {
    const { server, client } = connect();
    ["A", "B"].forEach((symbol) => server.publish(`TRADES:${symbol}`, trade(1)));
    const seen: string[] = [];
    const gaps: Gap[] = [];
    client.market.subscribe("TRADES:*", {
      last: 5,
      message: ({ symbol, seq }) => void seen.push(`${symbol}${seq}`),
      gap: (gap) => void gaps.push(gap),
    });
    await pass();
    server.cut();
    await pass();
    server.publish("TRADES:A", trade(2));
    server.publish("TRADES:A", trade(3));
    server.publish("TRADES:C", trade(1));
    server.restore();
    await pass();
    server.publish("TRADES:A", trade(4));
    await pass();
    expect(seen).toEqual(["A1", "B1", "C1", "A2", "A3", "A4"]);
    expect(gaps).toEqual([]);
    expect(server.requestsOf("subscribe").at(-1)).toMatchObject({
      topics: ["TRADES:*"],
      since: { "TRADES:A": { epoch: "e1", seq: 1 }, "TRADES:B": { epoch: "e1", seq: 1 } },
    });
  });

  it("reports what the server lost, topic by topic", async () => {
    const { server, client } = connect();
    ["A", "B"].forEach((symbol) => server.publish(`TRADES:${symbol}`, trade(1)));
    const gaps: string[] = [];
    client.market.subscribe("TRADES:*", { gap: ({ topic }) => void gaps.push(topic) });
    await pass();
    server.cut();
    server.forget();
    ["A", "B"].forEach((symbol) => server.publish(`TRADES:${symbol}`, trade(2)));
    server.restore();
    await pass();
    expect(gaps.sort()).toEqual(["TRADES:A", "TRADES:B"]);
  });

  it("shares a topic with those who listen to it by name, whoever comes and goes first", async () => {
    const { server, client } = connect();
    server.publish("ORDERBOOK:A@10", BOOK);
    const seen: AnyMessage[] = [];
    const named = watch(client.market.book("A", { depth: 10 }));
    await pass();
    const stop = client.market.subscribe("ORDERBOOK:*@10", { message: (each) => void seen.push(each) });
    await pass();
    expect(seen.map((each) => each.type)).toEqual(["snapshot"]);
    named.stop();
    await pass();
    server.publish("ORDERBOOK:A@10", { bids: [["9.5", "2"]], asks: [] });
    await pass();
    expect(seen).toHaveLength(2);
    const again = watch(client.market.book("A", { depth: 10 }));
    await pass();
    stop();
    await pass();
    server.publish("ORDERBOOK:A@10", { bids: [["9.0", "1"]], asks: [] });
    await pass();
    expect(again.values.at(-1)?.bids).toEqual([["10.0", "1"], ["9.5", "2"], ["9.0", "1"]]);
    again.stop();
    await pass();
    expect([...server.subscriptions]).toEqual([]);
  });

  it("leaves its topics to another pattern that matches them too", async () => {
    const { server, client } = connect();
    server.publish("PRICE:BTC", PRICE);
    const seen: AnyMessage[] = [];
    const stop = client.market.subscribe("PRICE:*", {});
    client.market.subscribe("PRICE:B*", { message: (each) => void seen.push(each) });
    await pass();
    stop();
    await pass();
    seen.length = 0;
    server.publish("PRICE:BTC", { ...PRICE, last: "2" });
    server.publish("PRICE:ETH", PRICE);
    await pass();
    expect(symbolsOf(seen)).toEqual(["BTC"]);
    const asked = server.requestsOf("subscribe").flatMap((each) => each.topics);
    expect(asked).toEqual(["PRICE:*", "PRICE:B*"]);
  });

  it("fetches a message of one topic that was skipped", async () => {
    const { server, client } = connect();
    const seen: number[] = [];
    server.publish("TRADES:A", trade(1));
    client.market.subscribe("TRADES:*", { message: ({ seq }) => void seen.push(seq) });
    await pass();
    server.drop(1);
    [2, 3].forEach((id) => server.publish("TRADES:A", trade(id)));
    await pass();
    expect(seen).toEqual([2, 3]);
  });

  it("asks for a new topic by its name if its beginning was lost", async () => {
    const { server, client } = connect();
    const seen: number[] = [];
    client.market.subscribe("TRADES:*", { last: 10, message: ({ seq }) => void seen.push(seq) });
    await pass();
    server.drop(1);
    [1, 2].forEach((id) => server.publish("TRADES:A", trade(id)));
    await pass();
    expect(seen).toEqual([1, 2]);
  });

  it("says why some topics are left out, and why it is refused", async () => {
    const { server, client } = connect();
    const limit = { code: "limit.topics", message: "at most 1" };
    server.answers["subscribe"] = () => ({
      ok: true,
      topics: { "PRICE:*": { status: "CONNECTED", matched: 0, topics: {}, refused: 1, limit } },
    });
    const statuses: TopicStatus[] = [];
    const stop = client.market.subscribe("PRICE:*", { status: (each) => void statuses.push(each) });
    await pass();
    expect(statuses.at(-1)).toMatchObject({ subscription: "live", error: { code: "limit.topics" } });
    stop();
    await pass();
    const error = { code: "auth.forbidden", message: "no" };
    server.answers["subscribe"] = () => ({ ok: true, topics: { "PRICE:*": { status: "ERROR", error } } });
    const { values } = watch(client.market.prices());
    await pass(60_000);
    expect(values.at(-1)).toMatchObject({ status: "error", error: { code: "auth.forbidden" } });
    expect(server.requestsOf("subscribe")).toHaveLength(2);
  });

  it("alone is asked for again after a pause, and not its topics by name", async () => {
    const { server, client } = connect();
    server.publish("TRADES:A", trade(1));
    const seen: number[] = [];
    client.market.subscribe("TRADES:*", { message: ({ seq }) => void seen.push(seq) });
    await pass();
    const error = { code: "limit.rate", message: "slow down", retry_after_ms: 500 };
    server.answers["subscribe"] = () => ({ ok: false, error });
    server.cut();
    server.publish("TRADES:A", trade(2));
    server.restore();
    await pass(400);
    delete server.answers["subscribe"];
    await pass(200);
    expect(seen).toEqual([2]);
    const asked = server.requestsOf("subscribe").map((each) => each.topics);
    expect(asked).toEqual([["TRADES:*"], ["TRADES:*"], ["TRADES:*"]]);
  });

  it("says that a new topic is too much", async () => {
    const { server, client } = connect();
    const statuses: TopicStatus[] = [];
    client.market.subscribe("PRICE:*", { status: (each) => void statuses.push(each) });
    await pass();
    const error = { code: "limit.topics", message: "at most 1" };
    server.emit("/market", "status", { stream: "PRICE", symbol: "A", state: "ERROR", error });
    await pass();
    expect(statuses.at(-1)).toMatchObject({ subscription: "live", error: { code: "limit.topics" } });
  });

  it("stays within the server's limit of a request when it comes back", async () => {
    const { server, client } = connect();
    for (let number = 0; number < 700; number += 1) {
      server.publish(`TRADES:S${number}`, trade(1));
    }
    const seen: number[] = [];
    client.market.subscribe("TRADES:*", { message: ({ seq }) => void seen.push(seq) });
    await pass();
    server.cut();
    await pass();
    for (let number = 0; number < 700; number += 1) {
      server.publish(`TRADES:S${number}`, trade(2));
    }
    server.restore();
    await pass();
    const sizes = server.requestsOf("subscribe").map(({ since }) => Object.keys(since).length);
    expect(sizes).toEqual([0, 500, 100, 100]);
    expect(seen.filter((seq) => seq === 2)).toHaveLength(700);
  });
});

describe("prices", () => {
  it("are listed by symbol, and change one by one", async () => {
    const { server, client } = connect();
    ["C", "A"].forEach((symbol) => server.publish(`PRICE:${symbol}`, PRICE));
    const { values } = watch(client.market.prices("*", { intervalMs: 100 }));
    await pass(200);
    const before = values.at(-1)?.prices ?? [];
    server.publish("PRICE:B", PRICE);
    server.publish("PRICE:C", { ...PRICE, last: "9" });
    await pass(200);
    const after = values.at(-1)?.prices ?? [];
    expect(after.map((each) => [each.symbol, each.data?.last, each.status])).toEqual([
      ["A", "1.01", "live"],
      ["B", "1.01", "live"],
      ["C", "9", "live"],
    ]);
    expect(after[0]).toBe(before[0]);
    expect(after[2]).not.toBe(before[1]);
    server.setState("PRICE:B", "STALE");
    await pass(200);
    expect(values.at(-1)?.prices.map((each) => each.status)).toEqual(["live", "stale", "live"]);
    server.cut();
    await pass(200);
    expect(values.at(-1)).toMatchObject({ status: "offline", prices: [{ status: "offline" }, {}, {}] });
  });

  it("may be of one symbol, and are empty without any", async () => {
    const { server, client } = connect();
    const none = watch(client.market.prices("B*"));
    const one = watch(client.market.prices("A"));
    await pass();
    expect(none.values.at(-1)).toMatchObject({ status: "empty", prices: [] });
    server.publish("PRICE:A", PRICE);
    await pass();
    expect(one.values.at(-1)?.prices).toMatchObject([{ symbol: "A", status: "live" }]);
  });
});

it("a pattern stands for the topics of its stream and view", () => {
  const matches = topicMatcher("TRADES:BTC*");
  expect(matches("TRADES:BTC.USDT")).toBe(true);
  expect(matches("TRADES:BTCUSDT@1m")).toBe(false);
  expect(matches("TRADES:XBTC")).toBe(false);
  expect(matches("PRICE:BTC")).toBe(false);
  expect(topicMatcher("ORDERBOOK:*:USDT@10/0.5")("ORDERBOOK:BTC/USDT:USDT@10/0.5")).toBe(true);
});
