// A member of a session comes back on the other node: recovered, with all it missed, and nobody saw it go.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { io } from "socket.io-client";

const nodes = JSON.parse(process.env.FLOORCAST_NODES);
const tokens = JSON.parse(process.env.FLOORCAST_MEMBERS);
const GRACE_MS = 1000 * Number(process.env.FLOORCAST_GRACE_SECONDS);
const opened = [];
let proxy;

// A proxy in front of one node, which can be closed and opened again in front of another.
class Proxy {
  #isOpen = true;
  #ends = new Set();
  #listener = createServer((client) => {
    if (!this.#isOpen) return client.destroy();
    const server = connect(portOf(this.node), "127.0.0.1");
    for (const [end, other] of [[client, server], [server, client]]) {
      this.#ends.add(end);
      end.on("error", () => {}).on("close", () => {
        this.#ends.delete(end);
        other.destroy();
      });
      end.pipe(other);
    }
  });

  async listen() {
    this.#listener.listen(0, "127.0.0.1");
    await once(this.#listener, "listening");
    this.url = `http://127.0.0.1:${this.#listener.address().port}`;
  }

  cut() {
    this.#isOpen = false;
    this.#ends.forEach((end) => end.destroy());
  }

  // Lets established connections live, and refuses new ones.
  refuse() {
    this.#isOpen = false;
  }

  leadTo(node) {
    this.node = node;
    this.#isOpen = true;
  }

  close() {
    this.cut();
    this.#listener.close();
  }
}

const portOf = (node) => Number(new URL(node.url).port);

before(async () => {
  proxy = new Proxy();
  await proxy.listen();
});

after(() => {
  opened.forEach((socket) => socket.disconnect());
  proxy.close();
});

async function member(user, session_id, { through, ...options }) {
  const quick = { forceNew: true, reconnectionDelay: 10, reconnectionDelayMax: 50 };
  const socket = io(`${through}/session`, { ...quick, ...options, auth: { token: tokens[user] } });
  opened.push(socket);
  socket.events = [];
  socket.onAny((name, ...args) => socket.events.push([name, args[0]]));
  await once(socket, "connect");
  assert.equal((await socket.emitWithAck("join", { session_id })).ok, true);
  return socket;
}

const received = (socket) =>
  socket.events.filter(([name]) => name === "message").map(([, body]) => body.data.text);
const presence = (socket) =>
  socket.events.filter(([name]) => name.startsWith("user_")).map(([name, body]) => [name, body.user_id]);

async function say(sender, session_id, ...texts) {
  for (const text of texts) {
    assert.equal((await sender.emitWithAck("send", { session_id, data: { text } })).ok, true);
  }
}

async function untilReceived(socket, text) {
  while (received(socket).at(-1) !== text) await once(socket, "message");
}

async function recover(socket, node) {
  const connected = once(socket, "connect");
  proxy.leadTo(node);
  await connected;
}

async function checkUnseen(bob, ann, session_id) {
  await sleep(GRACE_MS + 500);
  await say(ann, session_id, "still here");
  await untilReceived(bob, "still here");
  assert.deepEqual(presence(bob), [["user_joined", "ann"]], "nobody saw it go");
  const { participants } = await bob.emitWithAck("participants", { session_id });
  assert.deepEqual(participants.map((each) => [each.user_id, each.connections]), [["bob", 1], ["ann", 1]]);
}

for (const [name, options] of [
  ["default options", {}],
  ["WebSocket only", { transports: ["websocket"] }],
]) {
  test(`a member with ${name} recovers on the other node, again and again`, async () => {
    const session_id = `cut:${name.replaceAll(" ", "-")}`;
    const bob = await member("bob", session_id, { through: nodes[1].url });
    proxy.leadTo(nodes[0]);
    const ann = await member("ann", session_id, { through: proxy.url, ...options });
    const { id } = ann;
    const expected = [];
    for (let round = 0; round < 4; round++) {
      const gone = once(ann, "disconnect");
      proxy.cut();
      await gone;
      const texts = [`${round} first`, `${round} second`, `${round} live`];
      await say(bob, session_id, ...texts.slice(0, 2));
      await recover(ann, nodes[(round + 1) % 2]);
      assert.deepEqual([ann.recovered, ann.id], [true, id]);
      await say(bob, session_id, texts[2]);
      await untilReceived(ann, texts[2]);
      expected.push(...texts);
      assert.deepEqual(received(ann), expected, "once and in order");
    }
    await checkUnseen(bob, ann, session_id);
    assert.deepEqual(presence(ann), []);
  });
}

test("a member recovers on the other node after its own was drained", async () => {
  const session_id = "drained";
  const bob = await member("bob", session_id, { through: nodes[1].url });
  proxy.leadTo(nodes[0]);
  const ann = await member("ann", session_id, { through: proxy.url });
  const { id } = ann;
  await say(bob, session_id, "before");
  await untilReceived(ann, "before");
  const gone = once(ann, "disconnect");
  proxy.refuse();
  process.kill(nodes[0].pid, "SIGTERM");
  await gone;
  await untilStopped(nodes[0]);
  await say(bob, session_id, "first", "second");
  await recover(ann, nodes[1]);
  assert.deepEqual([ann.recovered, ann.id], [true, id]);
  await say(bob, session_id, "live");
  await untilReceived(ann, "live");
  assert.deepEqual(received(ann), ["before", "first", "second", "live"], "once and in order");
  await checkUnseen(bob, ann, session_id);
});

async function untilStopped(node) {
  for (;;) {
    const socket = connect(portOf(node), "127.0.0.1");
    const isRefused = await new Promise((resolve) => {
      socket.on("connect", () => resolve(false)).on("error", () => resolve(true));
    });
    socket.destroy();
    if (isRefused) return;
    await sleep(20);
  }
}
