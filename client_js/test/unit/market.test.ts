import { describe, expect, it, vi } from "vitest";
import type { AnyMessage, Gap, Timers, TopicStatus } from "../../src/index.js";
import { BOOK, connect, pass, PRICE, trade, useManualTime, watch } from "./kit.js";

useManualTime();

describe("a topic", () => {
  it("is subscribed once for all who listen, at the shortest interval", async () => {
    const { server, client } = connect();
    const slow = watch(client.market.price("A", { intervalMs: 1000 }));
    await pass();
    expect(server.subscriptions.get("PRICE:A")).toBe(1000);
    const fast = watch(client.market.price("A"));
    const other = watch(client.market.price("A", { intervalMs: 250 }));
    await pass();
    expect(server.subscriptions.get("PRICE:A")).toBe(0);
    other.stop();
    fast.stop();
    await pass();
    expect(server.subscriptions.get("PRICE:A")).toBe(1000);
    slow.stop();
    await pass();
    expect([...server.subscriptions]).toEqual([]);
    expect(client.market.subscribed).toEqual([]);
  });

  it("survives a release and a new listener in one turn, as in StrictMode", async () => {
    const { server, client } = connect();
    watch(client.market.price("A")).stop();
    const again = watch(client.market.price("A"));
    await pass();
    watch(client.market.price("B")).stop();
    again.stop();
    const last = watch(client.market.price("A"));
    await pass();
    expect(server.requestsOf("subscribe")).toHaveLength(1);
    expect(server.requestsOf("unsubscribe")).toHaveLength(0);
    last.stop();
  });

  it("shares requests with the others of its turn, up to a hundred", async () => {
    const { server, client } = connect();
    for (let number = 0; number < 150; number += 1) {
      watch(client.market.price(`S${number}`));
    }
    await pass();
    expect(server.requestsOf("subscribe").map((each) => each.topics.length)).toEqual([100, 50]);
  });

  it("begins with a snapshot for each listener, also for a late one", async () => {
    const { server, client } = connect();
    server.publish("PRICE:A", PRICE);
    const first = watch(client.market.price("A"));
    await pass();
    const late = watch(client.market.price("A", { intervalMs: 100 }));
    await pass();
    expect(first.values.at(-1)?.data).toEqual(PRICE);
    expect(late.values.at(-1)?.data).toEqual(PRICE);
  });

  it("is refused with the reason, and asked for again by a new listener", async () => {
    const { server, client } = connect();
    const error = { code: "auth.forbidden", message: "no" };
    server.answers["subscribe"] = () => ({ ok: true, topics: { "PRICE:A": { status: "ERROR", error } } });
    const first = watch(client.market.price("A"));
    await pass();
    expect(first.values.at(-1)).toMatchObject({ status: "error", error: { code: "auth.forbidden" } });
    first.stop();
    await pass();
    delete server.answers["subscribe"];
    watch(client.market.price("A"));
    await pass();
    expect(server.subscriptions.has("PRICE:A")).toBe(true);
  });

  it("is asked for again after the pause that the server names", async () => {
    const { server, client } = connect();
    const error = { code: "limit.rate", message: "slow down", retry_after_ms: 500 };
    server.answers["subscribe"] = () => ({ ok: false, error });
    watch(client.market.price("A"));
    await pass(400);
    expect(server.requestsOf("subscribe")).toHaveLength(1);
    delete server.answers["subscribe"];
    await pass(200);
    expect(server.subscriptions.has("PRICE:A")).toBe(true);
  });

  it("is asked for again while the server cannot check the rights", async () => {
    const { server, client } = connect();
    server.publish("PRICE:A", PRICE);
    const error = { code: "auth.unavailable", message: "no answer in time" };
    server.answers["subscribe"] = ({ topics }) => ({
      ok: false,
      error,
      topics: { [topics[0]]: { status: "ERROR", error } },
    });
    const price = watch(client.market.price("A"));
    const all = watch(client.market.prices());
    await pass(5_000);
    expect(client.market.price("A").get().status).toBe("loading");
    delete server.answers["subscribe"];
    await pass(20_000);
    expect(price.values.at(-1)?.status).toBe("live");
    expect(all.values.at(-1)?.prices).toHaveLength(1);
  });

  it("ends with the reason that a status gives", async () => {
    const { server, client } = connect();
    server.publish("PRICE:A", PRICE);
    const { values } = watch(client.market.price("A"));
    await pass();
    server.setState("PRICE:A", "ERROR", { code: "auth.forbidden", message: "no" });
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "error", error: { code: "auth.forbidden" } });
  });

  it("is not subscribed while the page is hidden, but callbacks stay", async () => {
    const visibility = { visibilityState: "visible", call: () => {} };
    vi.stubGlobal("document", {
      get visibilityState() {
        return visibility.visibilityState;
      },
      addEventListener: (_: string, call: () => void) => (visibility.call = call),
      removeEventListener: () => {},
    });
    const { server: paused, client: pausing } = connect();
    const { values } = watch(pausing.market.price("A"));
    pausing.market.subscribe("PRICE:B", {});
    await pass();
    visibility.visibilityState = "hidden";
    visibility.call();
    await pass(4_000);
    expect(paused.subscriptions.has("PRICE:A")).toBe(true);
    await pass(2_000);
    expect([...paused.subscriptions.keys()]).toEqual(["PRICE:B"]);
    expect(values.at(-1)?.status).toBe("paused");
    visibility.visibilityState = "visible";
    visibility.call();
    await pass();
    expect(paused.subscriptions.has("PRICE:A")).toBe(true);
    pausing.close();
    vi.unstubAllGlobals();
  });
});

describe("a price", () => {
  it("changes once a frame, however many updates come", async () => {
    const { server, client } = connect();
    const { values } = watch(client.market.price("A"));
    await pass();
    values.length = 0;
    for (let last = 0; last < 50; last += 1) {
      server.publish("PRICE:A", { ...PRICE, last: `${last}` });
    }
    await pass(20);
    expect(values.map((each) => each.data?.last)).toEqual(["49"]);
  });

  it("runs no listener while there are no frames, as in a hidden tab", async () => {
    let frames: (() => void)[] = [];
    const timers: Timers = {
      after(milliseconds, call) {
        const timer = setTimeout(call, milliseconds);
        return () => clearTimeout(timer);
      },
      frame(call) {
        frames.push(call);
        return () => (frames = frames.filter((each) => each !== call));
      },
    };
    const { server, client } = connect({ timers });
    const all = [0, 100].map((intervalMs) => watch(client.market.price("A", { intervalMs })));
    for (let last = 0; last < 50; last += 1) {
      server.publish("PRICE:A", { ...PRICE, last: `${last}` });
      await pass(100);
    }
    expect(all.map(({ values }) => values)).toEqual([[], []]);
    expect(frames.length).toBe(1);
    frames.splice(0).forEach((call) => call());
    expect(all.map(({ values }) => values.at(-1)?.data?.last)).toEqual(["49", "49"]);
    server.publish("PRICE:A", PRICE);
    await pass(1_000);
    expect(all.map(({ values }) => values.length)).toEqual([1, 1]);
    frames.splice(0).forEach((call) => call());
    expect(all.map(({ values }) => values.at(-1)?.data?.last)).toEqual(["1.01", "1.01"]);
  });

  it("keeps to its own interval beside a faster listener", async () => {
    const { server, client } = connect();
    const slow = watch(client.market.price("A", { intervalMs: 1000 }));
    watch(client.market.price("A"));
    await pass(100);
    slow.values.length = 0;
    for (let last = 0; last < 40; last += 1) {
      server.publish("PRICE:A", { ...PRICE, last: `${last}` });
      await pass(100);
    }
    expect(slow.values.length).toBeGreaterThanOrEqual(4);
    expect(slow.values.length).toBeLessThanOrEqual(5);
  });

  it("is stale with its feed, and its age is by the server's clock", async () => {
    const { server, client } = connect();
    server.publish("PRICE:A", PRICE);
    const { values } = watch(client.market.price("A"));
    await pass();
    expect(values.at(-1)?.status).toBe("live");
    server.setState("PRICE:A", "STALE");
    await pass(10_000);
    expect(values.at(-1)?.status).toBe("stale");
    expect(values.at(-1)?.ageMs).toBeGreaterThan(9_000);
    vi.setSystemTime(0);
    expect(values.at(-1)?.ageMs).toBeGreaterThan(9_000);
    expect(values.at(-1)?.ageMs).toBeLessThan(11_000);
  });

  it("does not change between frames for those who listen", async () => {
    const { server, client } = connect();
    const price = client.market.price("A");
    watch(price);
    await pass();
    const before = price.get();
    server.publish("PRICE:A", PRICE);
    await Promise.resolve();
    await Promise.resolve();
    expect(price.get()).toBe(before);
    await pass();
    expect(price.get().data).toEqual(PRICE);
  });

  it("is empty if nobody has published", async () => {
    const { client } = connect();
    const { values } = watch(client.market.price("A"));
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "empty", data: null, ts: null, ageMs: null });
  });

  it("is offline while the connection is lost, and then has the newest value", async () => {
    const { server, client } = connect();
    server.publish("PRICE:A", PRICE);
    const { values } = watch(client.market.price("A"));
    await pass();
    server.cut();
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "offline", data: PRICE });
    server.publish("PRICE:A", { ...PRICE, last: "9" });
    server.restore();
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "live", data: { last: "9" } });
    expect(server.requestsOf("subscribe").at(-1).since).toEqual({ "PRICE:A": { epoch: "e1", seq: 1 } });
  });
});

describe("a book", () => {
  it("is kept from changes, best first", async () => {
    const { server, client } = connect();
    server.publish("ORDERBOOK:A", BOOK);
    const { values } = watch(client.market.book("A"));
    await pass();
    server.publish("ORDERBOOK:A", { bids: [["9.5", "2"]], asks: [["10.25", "1"]] });
    await pass();
    expect(values.at(-1)).toMatchObject({
      status: "live",
      bids: [["10.0", "1"], ["9.5", "2"]],
      asks: [["10.25", "1"], ["10.5", "5"]],
      resyncs: 0,
    });
  });

  it("fetches a snapshot if its checksum does not match, and shows no levels as live", async () => {
    const { server, client } = connect();
    server.publish("ORDERBOOK:A", BOOK);
    const { values } = watch(client.market.book("A"));
    await pass();
    server.publish("ORDERBOOK:A", { bids: [["9.5", "2"]], asks: [], checksum: 1 });
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "live", resyncs: 1 });
    expect(values.at(-1)?.bids).toEqual([["10.0", "1"], ["9.5", "2"]]);
  });

  it("does not ask without end if no checksum ever matches", async () => {
    const { server, client } = connect();
    server.publish("ORDERBOOK:A", BOOK);
    server.answers["subscribe"] = () => {
      const data = { ...BOOK, checksum: 1 };
      const head = { stream: "ORDERBOOK", symbol: "A", type: "snapshot", epoch: "e1", seq: 1, prev: 0 };
      const reply = { status: "CONNECTED", epoch: "e1", seq: 1, interval_ms: 0, recovered: false };
      const snapshot = { ...head, ts: 1, data };
      return { ok: true, topics: { "ORDERBOOK:A": { ...reply, snapshot, missed: [] } } };
    };
    const { values } = watch(client.market.book("A"));
    await pass(5_000);
    expect(values.at(-1)?.status).toBe("loading");
    expect(server.requestsOf("subscribe").length).toBeLessThanOrEqual(7);
  });

  it("fetches what is missing if a change does not follow", async () => {
    const { server, client } = connect();
    server.publish("ORDERBOOK:A", BOOK);
    const { values } = watch(client.market.book("A"));
    await pass();
    server.drop(1);
    server.publish("ORDERBOOK:A", { bids: [["9.0", "3"]], asks: [] });
    server.publish("ORDERBOOK:A", { bids: [["9.5", "2"]], asks: [] });
    await pass();
    expect(values.at(-1)?.bids).toEqual([["10.0", "1"], ["9.5", "2"], ["9.0", "3"]]);
  });

  it("that comes back begins with a snapshot, while others have kept the topic", async () => {
    const { server, client } = connect();
    server.publish("ORDERBOOK:A", BOOK);
    const book = client.market.book("A");
    client.market.subscribe("ORDERBOOK:A", {});
    const { stop } = watch(book);
    await pass();
    stop();
    await pass();
    server.publish("ORDERBOOK:A", { bids: [["9.5", "2"]], asks: [] });
    await pass();
    const { values } = watch(book);
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "live", bids: [["10.0", "1"], ["9.5", "2"]] });
  });

  it("has a view of its depth and step", async () => {
    const { server, client } = connect();
    watch(client.market.book("A", { depth: 10, step: "0.5" }));
    await pass();
    expect([...server.subscriptions.keys()]).toEqual(["ORDERBOOK:A@10/0.5"]);
  });
});

describe("a tape", () => {
  it("begins with the newest trades, and misses none over a cut", async () => {
    const { server, client } = connect();
    [1, 2, 3].forEach((id) => server.publish("TRADES:A", trade(id)));
    const { values } = watch(client.market.trades("A", { last: 2 }));
    await pass();
    expect(values.at(-1)?.trades.map((each) => each.id)).toEqual([3, 2]);
    server.cut();
    await pass();
    [4, 5].forEach((id) => server.publish("TRADES:A", trade(id)));
    server.restore();
    await pass();
    server.publish("TRADES:A", trade(6));
    await pass();
    expect(values.at(-1)?.trades.map((each) => each.id)).toEqual([6, 5]);
    expect(values.at(-1)?.gaps).toEqual([]);
  });

  it("fetches a message that was skipped, once and in order", async () => {
    const { server, client } = connect();
    const seen: number[] = [];
    client.market.subscribe("TRADES:A", { message: ({ seq }: AnyMessage) => void seen.push(seq) });
    await pass();
    server.publish("TRADES:A", trade(1));
    server.drop(1);
    server.publish("TRADES:A", trade(2));
    server.publish("TRADES:A", trade(3));
    await pass();
    server.publish("TRADES:A", trade(4));
    await pass();
    expect(seen).toEqual([1, 2, 3, 4]);
  });

  it("tells a gap if the server lost its history", async () => {
    const { server, client } = connect();
    const gaps: Gap[] = [];
    server.publish("TRADES:A", trade(1));
    client.market.subscribe("TRADES:A", { last: 5, gap: (gap) => void gaps.push(gap) });
    await pass();
    server.cut();
    server.forget();
    server.publish("TRADES:A", trade(7));
    server.restore();
    await pass();
    expect(gaps).toEqual([{ topic: "TRADES:A", epoch: "e1", missedFrom: 2, missedTo: null }]);
  });

  it("gives a second tape the newest trades, and the first one none twice", async () => {
    const { server, client } = connect();
    const seen: number[] = [];
    [1, 2].forEach((id) => server.publish("TRADES:A", trade(id)));
    client.market.subscribe("TRADES:A", { message: ({ seq }: AnyMessage) => void seen.push(seq) });
    await pass();
    server.publish("TRADES:A", trade(3));
    await pass();
    const { values } = watch(client.market.trades("A"));
    await pass();
    expect(seen).toEqual([3]);
    expect(values.at(-1)?.trades.map((each) => each.id)).toEqual([3, 2, 1]);
  });
});

describe("a callback", () => {
  it("begins with what came since a time, and hears what is lost of it", async () => {
    const { server, client } = connect();
    server.publish("TRADES:A", trade(1));
    await pass(1_000);
    const ts = Date.now();
    [2, 3].forEach((id) => server.publish("TRADES:A", trade(id)));
    const seen: number[] = [];
    client.market.subscribe("TRADES:A", { message: ({ seq }: AnyMessage) => void seen.push(seq) });
    await pass();
    const since: number[] = [];
    const gaps: Gap[] = [];
    const message = ({ seq }: AnyMessage) => void since.push(seq);
    client.market.subscribe("TRADES:A", { since: { ts }, message, gap: (gap) => void gaps.push(gap) });
    await pass();
    server.publish("TRADES:A", trade(4));
    await pass();
    expect([seen, since, gaps]).toEqual([[4], [2, 3, 4], []]);
    const newest = { type: "update", epoch: "e1", seq: 9, prev: 8, ts: 1, stream: "TRADES", symbol: "B" };
    const reply = { status: "CONNECTED", epoch: "e1", seq: 9, interval_ms: 0, recovered: false };
    server.answers["subscribe"] = () => ({
      ok: true,
      topics: { "TRADES:B": { ...reply, snapshot: { ...newest, data: trade(9) }, missed: [] } },
    });
    client.market.subscribe("TRADES:B", { since: { ts: 1 }, gap: (gap) => void gaps.push(gap) });
    await pass();
    expect(gaps).toEqual([{ topic: "TRADES:B", epoch: "e1", missedFrom: 1, missedTo: 8 }]);
  });

  it("hears whether anybody has ever published its topic", async () => {
    const { server, client } = connect();
    const seen: TopicStatus["isKnown"][] = [];
    client.market.subscribe("TRADES:A", { status: ({ isKnown }) => void seen.push(isKnown) });
    const { values } = watch(client.market.trades("A"));
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "empty", isKnown: false });
    server.publish("TRADES:A", trade(1));
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "live", isKnown: true });
    expect(seen).toEqual([null, false, true]);
  });
});

describe("a will", () => {
  const messages = [{ topic: "BOT_STATUS", data: { status: "gone" } }];

  it("is set again on each connection, until it is taken back", async () => {
    const { server, client } = connect();
    const set = client.market.will(messages, { afterMs: 5_000 });
    await pass();
    await set;
    expect(server.will).toEqual({ after_ms: 5_000, messages });
    server.cut();
    await pass();
    server.restore();
    await pass();
    expect(server.will).toEqual({ after_ms: 5_000, messages });
    const taken = client.market.will(null);
    await pass();
    await taken;
    server.cut();
    server.restore();
    await pass();
    expect([server.will, server.requestsOf("will").length]).toEqual([null, 3]);
  });

  it("rejects with the refusal, at once or on a later connection", async () => {
    const { server, client } = connect();
    const error = { code: "auth.forbidden", message: "no" };
    const refused: string[] = [];
    const set = client.market.will(messages, { refused: ({ code }) => void refused.push(code) });
    await pass();
    await set;
    server.answers["will"] = () => ({ ok: false, error: { code: "server.overloaded", message: "" } });
    server.cut();
    server.restore();
    await pass();
    server.answers["will"] = () => ({ ok: false, error });
    await pass(2_000);
    expect(refused).toEqual(["auth.forbidden"]);
    await expect(client.market.will(messages)).rejects.toMatchObject({ code: "auth.forbidden" });
  });
});

describe("instruments", () => {
  it("are listed by symbol, and follow what changes", async () => {
    const { server, client } = connect();
    ["ETH", "BTC", "X"].forEach((symbol) => server.setInstrument(symbol));
    const { values } = watch(client.market.instruments({ match: "*T*" }));
    await pass();
    const names = () => values.at(-1)?.instruments.map((each) => `${each.symbol} ${each.status}`);
    expect(names()).toEqual(["BTC OPEN", "ETH OPEN"]);
    server.setInstrument("ATOM", { status: "HALTED" });
    server.setInstrument("MYCOIN");
    server.setInstrument("TON");
    await pass();
    expect(names()).toEqual(["ATOM HALTED", "BTC OPEN", "ETH OPEN", "TON OPEN"]);
  });

  it("are fetched page by page, and again after a cut", async () => {
    const { server, client } = connect();
    const page = (symbol: string) => ({ symbol, status: "OPEN", streams: [] });
    server.answers["instruments"] = ({ after = "" }) => ({
      ok: true,
      instruments: after === "~" ? [] : [page(after === "" ? "A" : "B")],
      has_more: after === "",
    });
    const { values } = watch(client.market.instruments());
    await pass();
    expect(values.at(-1)?.instruments.map((each) => each.symbol)).toEqual(["A", "B"]);
    server.cut();
    await pass();
    expect(values.at(-1)?.status).toBe("offline");
    server.restore();
    await pass();
    expect(values.at(-1)?.status).toBe("live");
  });

  it("say why the server refuses", async () => {
    const { server, client } = connect();
    const error = { code: "auth.forbidden", message: "no" };
    server.answers["instruments"] = () => ({ ok: false, error });
    const { values } = watch(client.market.instruments());
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "error", error: { code: "auth.forbidden" } });
  });
});

it("candles keep the bars and the one that grows", async () => {
  const { server, client } = connect();
  const bar = (t: number, c: string, closed = false) => ({ t, o: "1", h: "2", l: "1", c, v: "1", n: 1, closed });
  server.publish("TRADES:A@1m", { bars: [bar(0, "1", true), bar(60, "2")] });
  const { values } = watch(client.market.candles("A", "1m"));
  await pass();
  server.publish("TRADES:A@1m", { bars: [bar(60, "3", true), bar(120, "4")] });
  await pass(300);
  expect(values.at(-1)?.bars.map((each) => [each.t, each.c])).toEqual([
    [0, "1"],
    [60, "3"],
    [120, "4"],
  ]);
});

it("a callback hears of its topic's status", async () => {
  const { server, client } = connect();
  const seen: TopicStatus["subscription"][] = [];
  const stop = client.market.subscribe("USER_DATA", { status: (each) => void seen.push(each.subscription) });
  await pass();
  server.cut();
  await pass();
  expect(seen).toEqual(["pending", "live", "offline"]);
  stop();
});

it("publishing waits for the connection, and rejects with the refusal", async () => {
  const { server, client } = connect();
  const done = client.market.publish({ topic: "PRICE:A", data: PRICE });
  await pass();
  expect(await done).toEqual([{ epoch: "e1", seq: 1 }]);
  const error = { code: "auth.forbidden", message: "the token does not allow it" };
  server.answers["publish"] = () => ({ ok: false, error, positions: [{ error }] });
  const refused = client.market.publish({ topic: "PRICE:A", data: PRICE });
  await expect(refused).rejects.toMatchObject({ code: "auth.forbidden" });
});
