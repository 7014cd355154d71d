import { describe, expect, it } from "vitest";
import { refusalDelay } from "../../src/connection/retry.js";
import { parseAddress } from "../../src/connection/socket.js";
import { Book, compareDecimals, type BookMessage } from "../../src/index.js";
import { connect, pass, useManualTime, watch } from "./kit.js";

useManualTime();

describe("the connection", () => {
  it("opens a namespace when it is first used", async () => {
    const { server, client } = connect();
    expect(client.connection.get()).toMatchObject({ state: "idle", market: "idle" });
    const { values } = watch(client.connection);
    watch(client.market.price("A"));
    await pass();
    expect(values.at(-1)).toMatchObject({ state: "online", session: "idle", userId: "ann" });
    client.session("job:1").open();
    await pass();
    expect(values.at(-1)).toMatchObject({ state: "online", session: "online" });
    expect(server.tokens).toEqual(["t", "t"]);
  });

  it("opens before it is used, if asked to", async () => {
    const { client } = connect();
    client.connect();
    await pass();
    expect(client.connection.get()).toMatchObject({ state: "online", market: "online", session: "idle" });
  });

  it("says that it is offline and why, and comes back", async () => {
    const { server, client } = connect();
    const { values } = watch(client.connection);
    watch(client.market.price("A"));
    await pass();
    server.cut();
    await pass();
    expect(values.at(-1)).toMatchObject({ state: "offline", error: { code: "client.offline" } });
    server.restore();
    await pass();
    expect(values.at(-1)).toMatchObject({ state: "online", error: null });
  });

  it("comes back after a refusal when the server says so", async () => {
    const { server, client } = connect();
    const { values } = watch(client.connection);
    server.refusals["/market"] = { code: "limit.connections", message: "full", retry_after_ms: 2000 };
    watch(client.market.price("A"));
    await pass();
    expect(values.at(-1)).toMatchObject({ state: "offline", error: { code: "limit.connections" } });
    delete server.refusals["/market"];
    await pass(1_900);
    expect(server.subscriptions.size).toBe(0);
    await pass(1_200);
    expect(values.at(-1)?.state).toBe("online");
    expect(server.subscriptions.has("PRICE:A")).toBe(true);
  });

  it("stays away after a refusal that does not pass, until it is asked to try again", async () => {
    const { server, client } = connect();
    const { values } = watch(client.connection);
    server.refusals["/market"] = { code: "auth.forbidden", message: "no" };
    watch(client.market.price("A"));
    await pass(60_000);
    expect(values.at(-1)).toMatchObject({ state: "refused", error: { code: "auth.forbidden" } });
    expect(server.tokens).toHaveLength(1);
    delete server.refusals["/market"];
    client.reconnect();
    await pass();
    expect(values.at(-1)?.state).toBe("online");
  });

  it("works in one namespace if the token does not allow the other", async () => {
    const { server, client } = connect();
    const { values } = watch(client.connection);
    server.refusals["/session"] = { code: "auth.forbidden", message: "no" };
    watch(client.market.price("A"));
    client.session("job:1").open();
    await pass();
    expect(values.at(-1)).toMatchObject({ state: "online", market: "online", session: "refused" });
  });

  it("comes back if the server could not check its rights", async () => {
    const { server, client } = connect();
    const { values } = watch(client.connection);
    const refusal = { code: "auth.unavailable", message: "no answer in time" };
    server.refusals["/market"] = { ...refusal, retry_after_ms: 3_000 };
    watch(client.market.price("A"));
    await pass(2_900);
    expect(values.at(-1)).toMatchObject({ state: "offline", error: { code: "auth.unavailable" } });
    expect(server.tokens).toHaveLength(1);
    delete server.refusals["/market"];
    await pass(1_800);
    expect(values.at(-1)?.state).toBe("online");
  });

  it("stays away with a token that was revoked", async () => {
    const { server, client } = connect({ token: () => "t" });
    const { values } = watch(client.connection);
    server.refusals["/market"] = { code: "auth.revoked", message: "revoked" };
    watch(client.market.price("A"));
    await pass(60_000);
    expect(values.at(-1)).toMatchObject({ state: "refused", error: { code: "auth.revoked" } });
    expect(server.tokens).toHaveLength(1);
  });

  it("does not come back after a goodbye that forbids it", async () => {
    const { server, client } = connect();
    const { values } = watch(client.connection);
    watch(client.market.price("A"));
    await pass();
    server.goodbye("auth.revoked", false);
    await pass(60_000);
    expect(values.at(-1)).toMatchObject({ state: "refused", error: { code: "auth.revoked" } });
  });

  it("announces that the server drains", async () => {
    const { server, client } = connect();
    const { values } = watch(client.connection);
    watch(client.market.price("A"));
    await pass();
    server.emit("/market", "reconnect_hint", { after_ms: 5000 });
    await pass();
    expect(values.at(-1)?.isDraining).toBe(true);
    server.goodbye("server.draining");
    await pass();
    expect(values.at(-1)).toMatchObject({ state: "online", isDraining: false });
  });

  it("ends for good", async () => {
    const { server, client } = connect();
    const { values } = watch(client.connection);
    watch(client.market.price("A"));
    await pass();
    client.close();
    await pass(60_000);
    expect(values.at(-1)?.state).toBe("closed");
    expect(server.tokens).toHaveLength(1);
    await expect(client.market.publish({ topic: "PRICE:A", data: {} })).rejects.toMatchObject({
      code: "client.closed",
    });
  });
});

describe("the token", () => {
  it("is fetched once for both namespaces, and once to refresh both", async () => {
    let calls = 0;
    const { server, client } = connect({ token: async () => `t${(calls += 1)}` });
    watch(client.market.price("A"));
    client.session("job:1").open();
    await pass();
    expect(server.tokens).toEqual(["t1", "t1"]);
    server.emit("/market", "token_expiring", { expires_in_ms: 30_000 });
    server.emit("/session", "token_expiring", { expires_in_ms: 30_000 });
    await pass();
    expect(server.requestsOf("refresh_token")).toEqual([{ token: "t2" }]);
  });

  it("is fetched anew at once if the server ends the connection for it", async () => {
    let calls = 0;
    const { server, client } = connect({ token: () => `t${(calls += 1)}` });
    watch(client.market.price("A"));
    await pass();
    server.goodbye("auth.expired");
    await pass();
    expect(server.tokens).toEqual(["t1", "t2"]);
  });

  it("is asked for again while the function fails, until the old one ends", async () => {
    let fails = false;
    const { server, client } = connect({
      token: () => {
        if (fails) {
          throw new Error("no network");
        }
        return "t";
      },
    });
    watch(client.market.price("A"));
    await pass();
    fails = true;
    server.emit("/market", "token_expiring", { expires_in_ms: 30_000 });
    await pass(5_000);
    expect(server.requestsOf("refresh_token")).toHaveLength(0);
    fails = false;
    await pass(20_000);
    expect(server.requestsOf("refresh_token")).toHaveLength(1);
  });

  it("is fetched anew after a refusal, three times at most", async () => {
    let calls = 0;
    const { server, client } = connect({ token: () => `t${(calls += 1)}` });
    const { values } = watch(client.connection);
    server.refusals["/market"] = { code: "auth.invalid", message: "no" };
    watch(client.market.price("A"));
    await pass(60_000);
    expect(server.tokens).toEqual(["t1", "t2", "t3"]);
    expect(values.at(-1)).toMatchObject({ state: "refused", error: { code: "auth.invalid" } });
  });

  it("that the function fails to give leaves the connection offline, and is tried again", async () => {
    let fails = true;
    const token = () => (fails ? Promise.reject(new Error("no network")) : "t");
    const { client } = connect({ token });
    const { values } = watch(client.connection);
    watch(client.market.price("A"));
    await pass(3_000);
    expect(values.at(-1)?.error?.code).toBe("client.token");
    fails = false;
    await pass(30_000);
    expect(values.at(-1)?.state).toBe("online");
  });
});

it("a refusal passes if the server names a time, or its code says so", () => {
  const half = () => 0.5;
  expect(refusalDelay({ code: "limit.rate", retry_after_ms: 100 }, 0, false, half)).toBe(125);
  expect(refusalDelay({ code: "server.internal" }, 0, false, half)).toBe(375);
  expect(refusalDelay({ code: "server.internal" }, 20, false, half)).toBe(15_000);
  expect(refusalDelay({ code: "auth.expired" }, 0, false, half)).toBe(null);
  expect(refusalDelay({ code: "auth.expired" }, 0, true, half)).toBe(375);
  expect(refusalDelay({ code: "request.invalid" }, 0, true, half)).toBe(null);
});

it("an address may have the path that the server is mounted at", () => {
  const origin = "https://example.com";
  expect(parseAddress("https://example.com")).toEqual({ origin, path: "/socket.io/" });
  expect(parseAddress("https://example.com/realtime/")).toEqual({
    origin,
    path: "/realtime/socket.io/",
  });
});

it("decimals compare exactly", () => {
  expect(compareDecimals("9", "10")).toBeLessThan(0);
  expect(compareDecimals("1.0", "1.00")).toBe(0);
  expect(compareDecimals("-1.5", "-1.25")).toBeLessThan(0);
  const long = "12345678901234567890.123456789";
  expect(compareDecimals(`${long}1`, `${long}2`)).toBeLessThan(0);
  expect(compareDecimals(`-${long}1`, `-${long}2`)).toBeGreaterThan(0);
});

it("a book computes the checksum that the documentation gives as an example", () => {
  const book = new Book();
  const bids: [string, string][] = [["10.0", "1"], ["9.5", "2"]];
  const data = { bids, asks: [["10.5", "5"]] as [string, string][], checksum: 2405454328 };
  const head = { stream: "ORDERBOOK", symbol: "A", type: "snapshot", epoch: "e", prev: 0, ts: 1 };
  expect(book.apply({ ...head, seq: 1, data } as BookMessage)).toBe(true);
  expect(book.checksum()).toBe(2405454328);
  const change = { ...head, type: "update", prev: 1, seq: 2, data: { bids: [["9.50", "0"]], asks: [] } };
  expect(book.apply(change as unknown as BookMessage)).toBe(true);
  expect(book.bids).toEqual([["10.0", "1"]]);
  expect(book.apply({ ...change, prev: 5, seq: 6 } as unknown as BookMessage)).toBe(false);
  expect(book.position).toBe(null);
});
