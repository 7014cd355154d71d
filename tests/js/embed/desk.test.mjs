// Tests examples/embed.py with stock clients: its namespace, rule, guard, and recovery.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { io } from "socket.io-client";
import { Proxy } from "../kit/proxy.mjs";

const { FLOORCAST_URL: url } = process.env;
const tokens = JSON.parse(process.env.FLOORCAST_TOKENS);
const path = "/realtime/socket.io/";
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

function client(namespace, user, through = url) {
  const quick = { forceNew: true, reconnectionDelay: 10, reconnectionDelayMax: 50, path };
  const socket = io(through + namespace, { ...quick, auth: { token: tokens[user] } });
  socket.orders = [];
  socket.on("order", (order) => socket.orders.push(order.quantity));
  opened.push(socket);
  return socket;
}

async function trader(user, through) {
  const socket = client("/desk", user, through);
  await once(socket, "connect");
  return socket;
}

const order = (socket, quantity) => socket.emitWithAck("order", { symbol: "EURUSD", quantity });

async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

test("traders of a desk get its orders", async () => {
  const [ann, bob] = [await trader("ann"), await trader("bob")];
  const heard = once(bob, "order");
  const reply = await order(ann, 5);
  assert.equal(reply.ok, true);
  assert.equal(typeof reply.number, "number");
  assert.deepEqual((await heard)[0], { trader: "ann", symbol: "EURUSD", quantity: 5 });
});

test("the namespace refuses a token without a desk", async () => {
  const eve = client("/desk", "eve");
  const [error] = await once(eve, "connect_error");
  assert.deepEqual([error.message, error.data.code], ["the token names no desk", "auth.forbidden"]);
  eve.disconnect();
});

test("the guard and the model refuse orders, with their codes", async () => {
  const ann = await trader("ann");
  assert.equal((await order(ann, 1001)).error.code, "limit.payload");
  assert.equal((await order(ann, 0)).error.code, "request.invalid");
  assert.equal((await ann.emitWithAck("place", {})).error.code, "request.unknown_event");
});

test("the rule refuses a topic that the token allows", async () => {
  for (const [user, status] of [["ann", "CONNECTED"], ["eve", "ERROR"]]) {
    const socket = client("/market", user);
    await once(socket, "connect");
    const topic = "ORDERBOOK:BTCUSDT";
    const reply = await socket.emitWithAck("subscribe", { topics: [topic] });
    assert.equal(reply.topics[topic].status, status);
  }
});

test("a trader who is cut off recovers the orders in between", async () => {
  const [ann, bob] = [await trader("ann", proxy.url), await trader("bob")];
  const { id } = ann;
  await order(bob, 1);
  await until(() => ann.orders.length === 1);
  const gone = once(ann, "disconnect");
  proxy.cut();
  await gone;
  for (const quantity of [2, 3, 4]) await order(bob, quantity);
  const back = once(ann, "connect");
  proxy.restore();
  await back;
  assert.equal(ann.recovered, true);
  assert.equal(ann.id, id);
  await order(bob, 5);
  await until(() => ann.orders.at(-1) === 5);
  assert.deepEqual(ann.orders, [1, 2, 3, 4, 5]);
});
