// Tests connection state recovery of stock clients, and that no other client recovers their state.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { io } from "socket.io-client";
import { Proxy } from "./kit/proxy.mjs";

const { FLOORCAST_URL: url } = process.env;
const tokens = JSON.parse(process.env.FLOORCAST_MEMBERS);
const CANARY = "canary-51d8";
const opened = [];
let proxy;

before(async () => {
  proxy = new Proxy(url);
  await proxy.open();
});

after(() => {
  opened.forEach((socket) => socket.disconnect());
  proxy.close();
});

const event = async (socket, name) => (await once(socket, name))[0];

function client(namespace, user, { through = proxy.url, ...options } = {}) {
  const quick = { forceNew: true, reconnectionDelay: 10, reconnectionDelayMax: 50 };
  const socket = io(through + namespace, { ...quick, auth: { token: tokens[user] }, ...options });
  socket.received = [];
  socket.onAny((name, ...args) => socket.received.push([name, args[0]]));
  opened.push(socket);
  return socket;
}

// A member connected past the proxy.
async function directMember(user, session_id) {
  const socket = client("/session", user, { through: url });
  await once(socket, "connect");
  await socket.emitWithAck("join", { session_id });
  return socket;
}

async function cut(...sockets) {
  const gone = sockets.map((socket) => once(socket, "disconnect"));
  proxy.cut();
  await Promise.all(gone);
}

async function reconnect(...sockets) {
  const connected = sockets.map((socket) => once(socket, "connect"));
  proxy.restore();
  await Promise.all(connected);
}

const texts = (socket) => socket.received.filter(([name]) => name === "message").map(([, body]) => body.data.text);

async function sendAndReceive(sender, session_id, receiver, text) {
  const received = texts(receiver).includes(text) ? undefined : once(receiver, "message");
  assert.equal((await sender.emitWithAck("send", { session_id, data: { text } })).ok, true);
  await received;
}

for (const [name, options] of [
  ["default options", {}],
  ["WebSocket only", { transports: ["websocket"] }],
  ["polling only", { transports: ["polling"] }],
]) {
  test(`client with ${name} recovers repeatedly with missed messages`, async () => {
    const session_id = `cut:${name.replaceAll(" ", "-")}`;
    const bob = await directMember("bob", session_id);
    const ann = client("/session", "ann", options);
    await once(ann, "connect");
    assert.equal(ann.recovered, false);
    const { id } = ann;
    await ann.emitWithAck("join", { session_id });
    const expected = [];
    for (let round = 0; round < 5; round++) {
      await cut(ann);
      for (const part of ["first", "second"]) {
        expected.push(`${round} ${part}`);
        await bob.emitWithAck("send", { session_id, data: { text: expected.at(-1) } });
      }
      await reconnect(ann);
      assert.deepEqual([ann.recovered, ann.id], [true, id]);
      expected.push(`${round} live`);
      await bob.emitWithAck("send", { session_id, data: { text: expected.at(-1) } });
      while (texts(ann).at(-1) !== expected.at(-1)) await once(ann, "message");
      assert.deepEqual(texts(ann), expected);
    }
    const left = bob.received.filter(([what]) => what === "user_left");
    assert.deepEqual(left, [], "a recovered member never left");
    const participants = await bob.emitWithAck("participants", { session_id });
    assert.equal(participants.participant_count, 2);
  });
}

test("both namespaces of a connection recover without a gap", async () => {
  const market = client("/market", "ann", { forceNew: true });
  const session = market.io.socket("/session", { auth: { token: tokens.ann } });
  opened.push(session);
  await Promise.all([once(market, "connect"), once(session, "connect")]);
  const ids = [market.id, session.id];
  let seen;
  const gaps = [];
  market.on("trades", ({ prev, seq }) => {
    if (prev !== seen) gaps.push([prev, seen]);
    seen = seq;
  });
  await new Promise((resolve) => {
    market.emit("subscribe", { topics: ["TRADES:BTCUSDT"] }, (reply) => {
      seen = reply.topics["TRADES:BTCUSDT"].seq;
      resolve();
    });
  });
  for (let round = 0; round < 3; round++) {
    await cut(market, session);
    await reconnect(market, session);
    assert.deepEqual([market.recovered, session.recovered], [true, true]);
    assert.deepEqual([market.id, session.id], ids);
    await once(market, "trades");
  }
  assert.deepEqual(gaps, []);
});

test("client with only a welcome recovers", async () => {
  const ann = client("/market", "ann");
  await event(ann, "welcome");
  const { id } = ann;
  await cut(ann);
  await reconnect(ann);
  assert.deepEqual([ann.recovered, ann.id], [true, id]);
});

test("stolen pid recovers nothing and its owner still recovers", async () => {
  const session_id = "cut:private";
  const bob = await directMember("bob", session_id);
  const ann = client("/session", "ann");
  await once(ann, "connect");
  await ann.emitWithAck("join", { session_id });
  await sendAndReceive(bob, session_id, ann, "before");
  const { id, _pid: pid, _lastOffset: offset } = ann;
  await cut(ann);
  await bob.emitWithAck("send", { session_id, data: { text: CANARY } });
  for (const thief of ["dora", "ann-of-acme"]) {
    const eve = client("/session", thief, { through: url });
    await once(eve, "connect");
    const own = eve.id;
    eve._pid = pid;
    eve._lastOffset = offset;
    eve.io.engine.close();
    await once(eve, "connect");
    assert.equal(eve.recovered, false);
    assert.ok(![id, own].includes(eve.id));
    assert.notEqual(eve._pid, pid);
    await bob.emitWithAck("send", { session_id, data: { text: `${CANARY} again` } });
    const refused = await eve.emitWithAck("history", { session_id });
    // A user of another org sees no such session, or an empty one of its own org.
    assert.equal(refused.ok, false);
    assert.ok(!JSON.stringify(eve.received).includes(CANARY), "the canary leaked");
  }
  await reconnect(ann);
  assert.deepEqual([ann.recovered, ann.id], [true, id]);
  while (texts(ann).length < 4) await once(ann, "message");
  assert.deepEqual(texts(ann), ["before", CANARY, `${CANARY} again`, `${CANARY} again`]);
});

test("forged offset recovers nothing", async () => {
  const session_id = "cut:forged";
  const bob = await directMember("bob", session_id);
  const ann = client("/session", "ann", { transports: ["websocket"] });
  await once(ann, "connect");
  for (const forge of [
    (offset) => `${offset}0000`,
    (offset) => offset.replace(/^..../, (tag) => (tag === "zzzz" ? "yyyy" : "zzzz")),
    (offset) => offset.replace("-", "--"),
    () => "nonsense",
    () => "9".repeat(64),
  ]) {
    const { id } = ann;
    assert.equal((await ann.emitWithAck("join", { session_id })).ok, true);
    await sendAndReceive(bob, session_id, ann, "heard");
    await cut(ann);
    ann._lastOffset = forge(ann._lastOffset);
    ann.received = [];
    await bob.emitWithAck("send", { session_id, data: { text: CANARY } });
    await reconnect(ann);
    assert.equal(ann.recovered, false);
    assert.notEqual(ann.id, id);
    assert.equal((await ann.emitWithAck("send", { session_id, data: {} })).error.code, "session.not_joined");
    assert.deepEqual(texts(ann), []);
  }
});

test("client that disconnected by itself does not recover", async () => {
  const ann = client("/session", "ann");
  const { connection_id } = await event(ann, "welcome");
  await ann.emitWithAck("join", { session_id: "cut:left" });
  ann.disconnect();
  ann.connect();
  const welcome = await event(ann, "welcome");
  assert.equal(ann.recovered, false);
  assert.notEqual(welcome.connection_id, connection_id);
  const refused = await ann.emitWithAck("send", { session_id: "cut:left", data: {} });
  assert.equal(refused.error.code, "session.not_joined");
});

test("client without recovery gets no pid and no offsets", async () => {
  const ann = client("/session", "ann", { auth: { token: tokens.ann, recovery: false } });
  const sizes = [];
  ann.onAny((...args) => sizes.push(args.length));
  await event(ann, "welcome");
  await ann.emitWithAck("join", { session_id: "cut:plain" });
  await sendAndReceive(ann, "cut:plain", ann, "alone");
  assert.deepEqual([ann._pid, ann._lastOffset], [undefined, undefined]);
  assert.deepEqual(new Set(sizes), new Set([2]));
  await cut(ann);
  await reconnect(ann);
  assert.ok(!ann.recovered);
});
