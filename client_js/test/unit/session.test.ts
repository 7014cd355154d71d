import { describe, expect, it } from "vitest";
import type { SessionSignal } from "../../src/index.js";
import { connect, pass, useManualTime, watch } from "./kit.js";

useManualTime();

const texts = (view: { messages: readonly { data: Record<string, unknown> }[] } | undefined) =>
  view?.messages.map((each) => each.data["text"]);

describe("a session", () => {
  it("is joined with its history while somebody listens", async () => {
    const { server, client } = connect();
    ["a", "b", "c"].forEach((text) => server.say("job:1", "bob", { text }));
    server.enter("job:1", "bob");
    const { values, stop } = watch(client.session("job:1", { history: 2 }));
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "joined", hasOlder: true });
    expect(texts(values.at(-1))).toEqual(["b", "c"]);
    expect(values.at(-1)?.participants.map((each) => each.user_id)).toEqual(["bob", "ann"]);
    await client.session("job:1").loadOlder(2);
    await pass();
    expect(texts(values.at(-1))).toEqual(["a", "b", "c"]);
    stop();
    await pass();
    expect(server.requestsOf("leave")).toHaveLength(1);
    expect(client.session("job:1").get().status).toBe("left");
  });

  it("is joined once through a release and a new listener in one turn", async () => {
    const { server, client } = connect();
    watch(client.session("job:1")).stop();
    watch(client.session("job:1"));
    await pass();
    expect(server.requestsOf("join")).toHaveLength(1);
    expect(server.requestsOf("leave")).toHaveLength(0);
  });

  it("gets what it missed over a cut, once and in order", async () => {
    const { server, client } = connect();
    const { values } = watch(client.session("job:1"));
    await pass();
    server.say("job:1", "bob", { text: "a" });
    await pass();
    server.cut();
    await pass();
    expect(values.at(-1)?.status).toBe("offline");
    server.say("job:1", "bob", { text: "b" });
    server.restore();
    server.say("job:1", "bob", { text: "c" });
    await pass();
    server.say("job:1", "bob", { text: "d" });
    await pass();
    expect(texts(values.at(-1))).toEqual(["a", "b", "c", "d"]);
    expect(values.at(-1)?.gaps).toBe(0);
  });

  it("counts a gap if the server lost its history", async () => {
    const { server, client } = connect();
    const { values } = watch(client.session("job:1"));
    await pass();
    server.say("job:1", "bob", { text: "a" });
    await pass();
    server.cut();
    server.forget();
    server.say("job:1", "bob", { text: "b" });
    server.restore();
    await pass();
    expect(values.at(-1)?.gaps).toBe(1);
    expect(texts(values.at(-1))).toEqual(["b"]);
  });

  it("shows who joins, leaves and types", async () => {
    const { server, client } = connect();
    const { values } = watch(client.session("job:1"));
    await pass();
    server.enter("job:1", "bob");
    server.signal("job:1", "bob", { typing: true });
    await pass();
    expect(values.at(-1)?.participants.map((each) => each.user_id)).toEqual(["ann", "bob"]);
    expect(values.at(-1)?.typing).toEqual(["bob"]);
    await pass(5_000);
    expect(values.at(-1)?.typing).toEqual([]);
    server.signal("job:1", "bob", { typing: true });
    await pass();
    server.exit("job:1", "bob");
    await pass();
    expect(values.at(-1)).toMatchObject({ typing: [], participants: [{ user_id: "ann" }] });
  });

  it("sends a typing signal at most every two seconds, and passes other signals on", async () => {
    const { server, client } = connect();
    const session = client.session("job:1");
    const seen: SessionSignal[] = [];
    session.onSignal((signal) => void seen.push(signal));
    session.open();
    await pass();
    session.typing();
    session.typing();
    await pass(2_000);
    session.typing();
    server.signal("job:1", "bob", { cursor: 3 });
    await pass();
    expect(server.requestsOf("signal")).toHaveLength(2);
    expect(seen.map((each) => each.data)).toEqual([{ cursor: 3 }]);
  });

  it("ends with the reason, and takes no more messages", async () => {
    const { server, client } = connect();
    const session = client.session("job:1");
    const { values } = watch(session);
    await pass();
    server.end("job:1", "kicked");
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "closed", reason: "kicked" });
    await expect(session.send({ text: "x" })).rejects.toMatchObject({ code: "session.closed" });
    server.cut();
    server.restore();
    await pass();
    expect(values.at(-1)?.status).toBe("closed");
  });

  it("is refused with the reason", async () => {
    const { server, client } = connect();
    const error = { code: "auth.forbidden", message: "no" };
    server.answers["join"] = () => ({ ok: false, error });
    const { values } = watch(client.session("job:1"));
    await pass();
    expect(values.at(-1)).toMatchObject({ status: "error", error: { code: "auth.forbidden" } });
  });
});

describe("sending", () => {
  it("waits for the join, and resolves with the position", async () => {
    const { client } = connect();
    const session = client.session("job:1");
    const { values } = watch(session);
    const sent = session.send({ text: "a" });
    expect(session.get().pending).toHaveLength(1);
    await pass();
    expect(await sent).toMatchObject({ seq: 1 });
    await pass();
    expect(texts(values.at(-1))).toEqual(["a"]);
    expect(values.at(-1)?.pending).toEqual([]);
  });

  it("joins for one message if nobody listens", async () => {
    const { server, client } = connect();
    const sent = client.session("job:1").send({ text: "a" });
    await pass();
    expect(await sent).toMatchObject({ seq: 1 });
    await pass();
    expect(server.requestsOf("leave")).toHaveLength(1);
  });

  it("repeats a message under its id if the reply is lost", async () => {
    const { server, client } = connect();
    const session = client.session("job:1");
    const { values } = watch(session);
    await pass();
    const sent = session.send({ text: "a" });
    let isLost = false;
    server.answers["send"] = () => {
      if (!isLost) {
        isLost = true;
        // The server takes it, and the connection ends before the reply.
        const { id, data } = server.requestsOf("send").at(-1);
        server.say("job:1", "ann", data, id);
        server.cut();
      }
      return undefined;
    };
    await pass();
    server.restore();
    await pass();
    expect(await sent).toMatchObject({ seq: 1 });
    expect(new Set(server.requestsOf("send").map((each) => each.id)).size).toBe(1);
    expect(texts(values.at(-1))).toEqual(["a"]);
  });

  it("repeats it after the pause that the server names, and rejects a refusal", async () => {
    const { server, client } = connect();
    const session = client.session("job:1");
    session.open();
    await pass();
    const busy = { code: "limit.rate", message: "slow down", retry_after_ms: 300 };
    server.answers["send"] = () => ({ ok: false, error: busy });
    const sent = session.send({ text: "a" });
    await pass(200);
    server.answers["send"] = () => undefined;
    await pass(200);
    expect(await sent).toMatchObject({ seq: 1 });
    const error = { code: "limit.payload", message: "too large" };
    server.answers["send"] = () => ({ ok: false, error });
    const refused = session.send({ text: "b" });
    const rejects = expect(refused).rejects.toMatchObject({ code: "limit.payload" });
    await pass();
    await rejects;
  });

  it("gives up after half a minute without the server", async () => {
    const { server, client } = connect();
    const session = client.session("job:1");
    session.open();
    await pass();
    server.cut();
    const failed = expect(session.send({ text: "a" })).rejects.toMatchObject({ code: "client.timeout" });
    await pass(31_000);
    await failed;
    expect(session.get().pending).toEqual([]);
  });
});

describe("a notice", () => {
  it("is acknowledged once its handlers are done", async () => {
    const { server, client } = connect();
    const seen: string[] = [];
    client.onNotice(async (notice) => void seen.push(notice.event));
    await pass();
    const acknowledged = server.notify("order.filled", { id: 1 }, true);
    await pass();
    expect(await acknowledged).toBe(true);
    expect(seen).toEqual(["order.filled"]);
  });

  it("is not acknowledged if a handler fails", async () => {
    const { server, client } = connect();
    const reported = console.error;
    console.error = () => {};
    client.onNotice(() => Promise.reject(new Error("no")));
    await pass();
    let isAcknowledged = false;
    void server.notify("order.filled", { id: 1 }, true).then(() => (isAcknowledged = true));
    await pass();
    console.error = reported;
    expect(isAcknowledged).toBe(false);
  });
});
