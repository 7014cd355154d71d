// Tests stock clients with each transport against `floorcast serve --demo`.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, test } from "node:test";
import { io } from "socket.io-client";

const { FLOORCAST_URL: url, FLOORCAST_TOKEN: token } = process.env;
const opened = [];

function client(options = {}, namespace = "/market") {
  const socket = io(url + namespace, { forceNew: true, reconnection: false, auth: { token }, ...options });
  opened.push(socket);
  return socket;
}

const event = async (socket, name) => (await once(socket, name))[0];

async function refused(options, namespace) {
  const socket = client(options, namespace);
  const error = await event(socket, "connect_error");
  assert.ok(error.message.length > 0);
  return error.data.code;
}

// A busy machine may need more time for the upgrade than for some prices.
async function upgraded({ io: { engine } }) {
  while (engine.transport.name !== "websocket") await new Promise((resolve) => setTimeout(resolve, 10));
}

after(() => opened.forEach((socket) => socket.disconnect()));

for (const [name, options] of [
  ["default options", {}],
  ["WebSocket only", { transports: ["websocket"] }],
  ["polling only", { transports: ["polling"] }],
]) {
  test(`client with ${name} receives price updates`, async () => {
    const socket = client(options);
    const welcome = await event(socket, "welcome");
    assert.equal(welcome.user_id, "trader");
    const reply = await socket.emitWithAck("subscribe", { topics: ["PRICE:BTCUSDT"] });
    assert.equal(reply.ok, true);
    const topic = reply.topics["PRICE:BTCUSDT"];
    assert.equal(topic.status, "CONNECTED");
    let seen = topic.seq;
    for (let i = 0; i < 3; i++) {
      const message = await event(socket, "price");
      assert.equal(message.symbol, "BTCUSDT");
      assert.equal(message.epoch, topic.epoch);
      assert.equal(message.prev, seen);
      assert.equal(message.seq, seen + 1);
      assert.match(message.data.last, /^\d+\.\d+$/);
      seen = message.seq;
    }
    if (name === "polling only") assert.equal(socket.io.engine.transport.name, "polling");
    else await upgraded(socket);
  });
}

test("upgrade during a price stream loses nothing", async () => {
  const socket = client();
  const seqs = [];
  const last = new Promise((resolve) => {
    socket.on("price", (message) => {
      if (seqs.length) assert.equal(message.prev, seqs.at(-1));
      if (seqs.push(message.seq) === 8) resolve();
    });
  });
  await once(socket, "connect");
  await socket.emitWithAck("subscribe", { topics: ["PRICE:ETHUSDT"] });
  await last;
  await upgraded(socket);
  await event(socket, "price");
});

test("bad token is refused with its code", async () => {
  const parts = token.split(".");
  const none = Buffer.from('{"alg":"none","typ":"JWT"}').toString("base64url");
  assert.equal(await refused({ auth: {} }), "auth.missing");
  assert.equal(await refused({ auth: { token: "nonsense" } }), "auth.invalid");
  assert.equal(await refused({ auth: { token: token.slice(0, -3) } }), "auth.invalid");
  assert.equal(await refused({ auth: { token: `${none}.${parts[1]}.` } }), "auth.invalid");
  assert.equal(await refused({}, "/"), "request.invalid");
  for (const [name, code] of [
    ["EXPIRED", "auth.expired"],
    ["OTHER_AUDIENCE", "auth.invalid"],
    ["WEAK_KEY", "auth.invalid"],
  ]) {
    assert.equal(await refused({ auth: { token: process.env[`FLOORCAST_${name}`] } }), code, name);
  }
});

test("both namespaces share one connection and keep the session id", async () => {
  const market = client({ forceNew: false });
  const session = io(`${url}/session`, { auth: { token, session_id: "job:42" } });
  opened.push(session);
  const [a, b] = await Promise.all([event(market, "welcome"), event(session, "welcome")]);
  assert.equal(a.session_id, undefined);
  assert.equal(b.session_id, "job:42");
  assert.equal(market.io, session.io);
});

test("refused event gets an error ack, or an error event without ack", async () => {
  const socket = client({ transports: ["websocket"] });
  await once(socket, "connect");
  const reply = await socket.emitWithAck("nonsense", {});
  assert.equal(reply.ok, false);
  assert.equal(reply.error.code, "request.unknown_event");
  socket.emit("subscribe", { topics: [] });
  assert.equal((await event(socket, "error")).code, "request.invalid");
});

test("binary data closes the connection", async () => {
  const socket = client({ transports: ["websocket"] });
  await once(socket, "connect");
  socket.emit("subscribe", { topics: [new Uint8Array([1, 2, 3])] });
  assert.equal(await event(socket, "disconnect"), "transport close");
});

test("client reconnects after a disconnect", async () => {
  const socket = client({ transports: ["websocket"] });
  const first = await event(socket, "welcome");
  socket.disconnect();
  socket.connect();
  const second = await event(socket, "welcome");
  assert.notEqual(first.connection_id, second.connection_id);
  const reply = await socket.emitWithAck("subscriptions", {});
  assert.deepEqual(reply, { ok: true, topics: {} });
});
