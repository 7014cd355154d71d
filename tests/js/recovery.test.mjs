// What a stock client gets back that was cut off, and what nobody else gets, with `socket.recovered`.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { after, before, test } from "node:test";
import { io } from "socket.io-client";

const { FLOORCAST_URL: url } = process.env;
const tokens = JSON.parse(process.env.FLOORCAST_MEMBERS);
const upstream = Number(new URL(url).port);
const CANARY = "canary-51d8";
const opened = [];
let way;

// A way to the server that can be cut, and stays so until it is mended.
class Way {
  #cut = false;
  #ends = new Set();
  #listener = createServer((client) => {
    if (this.#cut) return client.destroy();
    const server = connect(upstream, "127.0.0.1");
    for (const [end, other] of [[client, server], [server, client]]) {
      this.#ends.add(end);
      end.on("error", () => {}).on("close", () => {
        this.#ends.delete(end);
        other.destroy();
      });
      end.pipe(other);
    }
  });

  async open() {
    this.#listener.listen(0, "127.0.0.1");
    await once(this.#listener, "listening");
    this.url = `http://127.0.0.1:${this.#listener.address().port}`;
  }

  cut() {
    this.#cut = true;
    this.#ends.forEach((end) => end.destroy());
  }

  mend() {
    this.#cut = false;
  }

  close() {
    this.cut();
    this.#listener.close();
  }
}

before(async () => {
  way = new Way();
  await way.open();
});

after(() => {
  opened.forEach((socket) => socket.disconnect());
  way.close();
});

const event = async (socket, name) => (await once(socket, name))[0];

function client(namespace, user, { through = way.url, ...options } = {}) {
  const quick = { forceNew: true, reconnectionDelay: 10, reconnectionDelayMax: 50 };
  const socket = io(through + namespace, { ...quick, auth: { token: tokens[user] }, ...options });
  socket.heard = [];
  socket.onAny((name, ...args) => socket.heard.push([name, args[0]]));
  opened.push(socket);
  return socket;
}

// Somebody whom no cut of ours reaches.
async function steady(user, session_id) {
  const socket = client("/session", user, { through: url });
  await once(socket, "connect");
  await socket.emitWithAck("join", { session_id });
  return socket;
}

async function cutOff(...sockets) {
  const gone = sockets.map((socket) => once(socket, "disconnect"));
  way.cut();
  await Promise.all(gone);
}

async function back(...sockets) {
  const connected = sockets.map((socket) => once(socket, "connect"));
  way.mend();
  await Promise.all(connected);
}

const said = (socket) => socket.heard.filter(([name]) => name === "message").map(([, body]) => body.data.text);

async function sayAndHear(speaker, session_id, listener, text) {
  const heard = said(listener).includes(text) ? undefined : once(listener, "message");
  assert.equal((await speaker.emitWithAck("send", { session_id, data: { text } })).ok, true);
  await heard;
}

for (const [name, options] of [
  ["default options", {}],
  ["WebSocket only", { transports: ["websocket"] }],
  ["polling only", { transports: ["polling"] }],
]) {
  test(`a client with ${name} has its connection back, again and again, with what it missed`, async () => {
    const session_id = `cut:${name.replaceAll(" ", "-")}`;
    const bob = await steady("bob", session_id);
    const ann = client("/session", "ann", options);
    await once(ann, "connect");
    assert.equal(ann.recovered, false);
    const { id } = ann;
    await ann.emitWithAck("join", { session_id });
    const expected = [];
    for (let round = 0; round < 5; round++) {
      await cutOff(ann);
      for (const part of ["first", "second"]) {
        expected.push(`${round} ${part}`);
        await bob.emitWithAck("send", { session_id, data: { text: expected.at(-1) } });
      }
      await back(ann);
      assert.deepEqual([ann.recovered, ann.id], [true, id]);
      expected.push(`${round} live`);
      await bob.emitWithAck("send", { session_id, data: { text: expected.at(-1) } });
      while (said(ann).at(-1) !== expected.at(-1)) await once(ann, "message");
      assert.deepEqual(said(ann), expected);
    }
    const left = bob.heard.filter(([what]) => what === "user_left");
    assert.deepEqual(left, [], "who is back in time was never away");
    const participants = await bob.emitWithAck("participants", { session_id });
    assert.equal(participants.participant_count, 2);
  });
}

test("both namespaces of one connection are back, and the market goes on where it was", async () => {
  const market = client("/market", "ann", { forceNew: true });
  const session = market.io.socket("/session", { auth: { token: tokens.ann } });
  opened.push(session);
  await Promise.all([once(market, "connect"), once(session, "connect")]);
  const ids = [market.id, session.id];
  let seen;
  const faults = [];
  market.on("trades", ({ prev, seq }) => {
    if (prev !== seen) faults.push([prev, seen]);
    seen = seq;
  });
  await new Promise((resolve) => {
    market.emit("subscribe", { topics: ["TRADES:BTCUSDT"] }, (reply) => {
      seen = reply.topics["TRADES:BTCUSDT"].seq;
      resolve();
    });
  });
  for (let round = 0; round < 3; round++) {
    await cutOff(market, session);
    await back(market, session);
    assert.deepEqual([market.recovered, session.recovered], [true, true]);
    assert.deepEqual([market.id, session.id], ids);
    await once(market, "trades");
  }
  assert.deepEqual(faults, []);
});

test("a client that has heard nothing yet but its welcome is back too", async () => {
  const ann = client("/market", "ann");
  await event(ann, "welcome");
  const { id } = ann;
  await cutOff(ann);
  await back(ann);
  assert.deepEqual([ann.recovered, ann.id], [true, id]);
});

test("another's pid brings nothing of theirs, and they still have it", async () => {
  const session_id = "cut:private";
  const bob = await steady("bob", session_id);
  const ann = client("/session", "ann");
  await once(ann, "connect");
  await ann.emitWithAck("join", { session_id });
  await sayAndHear(bob, session_id, ann, "before");
  const { id, _pid: pid, _lastOffset: offset } = ann;
  await cutOff(ann);
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
    // One of another org finds no such session there, or an empty one of its own.
    assert.equal(refused.ok, false);
    assert.ok(!JSON.stringify(eve.heard).includes(CANARY), "the canary was heard outside");
  }
  await back(ann);
  assert.deepEqual([ann.recovered, ann.id], [true, id]);
  while (said(ann).length < 4) await once(ann, "message");
  assert.deepEqual(said(ann), ["before", CANARY, `${CANARY} again`, `${CANARY} again`]);
});

test("a forged offset brings nothing back", async () => {
  const session_id = "cut:forged";
  const bob = await steady("bob", session_id);
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
    await sayAndHear(bob, session_id, ann, "heard");
    await cutOff(ann);
    ann._lastOffset = forge(ann._lastOffset);
    ann.heard = [];
    await bob.emitWithAck("send", { session_id, data: { text: CANARY } });
    await back(ann);
    assert.equal(ann.recovered, false);
    assert.notEqual(ann.id, id);
    assert.equal((await ann.emitWithAck("send", { session_id, data: {} })).error.code, "session.not_joined");
    assert.deepEqual(said(ann), []);
  }
});

test("a client that disconnected by itself comes back as somebody new", async () => {
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

test("without recovery there is no pid, and no event has an offset", async () => {
  const ann = client("/session", "ann", { auth: { token: tokens.ann, recovery: false } });
  const sizes = [];
  ann.onAny((...args) => sizes.push(args.length));
  await event(ann, "welcome");
  await ann.emitWithAck("join", { session_id: "cut:plain" });
  await sayAndHear(ann, "cut:plain", ann, "alone");
  assert.deepEqual([ann._pid, ann._lastOffset], [undefined, undefined]);
  assert.deepEqual(new Set(sizes), new Set([2]));
  await cutOff(ann);
  await back(ann);
  assert.ok(!ann.recovered);
});
