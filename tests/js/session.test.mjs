// Tests a session of two stock JavaScript clients and a Python script, and its isolation.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { io } from "socket.io-client";

const { FLOORCAST_URL: url, FLOORCAST_PYTHON: python, FLOORCAST_CHAT: chat } = process.env;
const tokens = JSON.parse(process.env.FLOORCAST_MEMBERS);
const CANARY = "canary-7f3a";
const opened = [], children = [];

after(() => {
  opened.forEach((socket) => socket.disconnect());
  children.forEach((child) => child.kill());
});

function member(user, session_id) {
  const socket = io(`${url}/session`, { forceNew: true, auth: { token: tokens[user], session_id } });
  socket.received = [];
  socket.onAny((...args) => socket.received.push(JSON.stringify(args)));
  opened.push(socket);
  return socket;
}

const event = async (socket, name) => (await once(socket, name))[0];

test("browsers and a script share an isolated session", async () => {
  const ann = member("ann", "desk-1");
  assert.equal((await event(ann, "welcome")).session_id, "desk-1");
  const elsewhere = member("dora", "desk-2"), abroad = member("ann-of-acme", "desk-1");
  await Promise.all([event(elsewhere, "welcome"), event(abroad, "welcome")]);
  const bob = member("bob");
  await event(bob, "welcome");
  const [joined, reply] = await Promise.all([
    event(ann, "user_joined"),
    bob.emitWithAck("join", { session_id: "desk-1" }),
  ]);
  assert.deepEqual([joined.user_id, joined.participant_count, reply.participant_count], ["bob", 2, 2]);

  const script = spawn(python, [chat, url, tokens.carl, "desk-1"], { stdio: ["pipe", "pipe", "inherit"] });
  children.push(script);
  const lines = createInterface({ input: script.stdout })[Symbol.asyncIterator]();
  assert.equal((await event(ann, "user_joined")).participant_count, 3);
  assert.equal((await lines.next()).value, "* 3 in the room");

  const received = Promise.all([event(ann, "message"), event(bob, "message")]);
  const sent = await ann.emitWithAck("send", { session_id: "desk-1", data: { text: CANARY }, id: "1" });
  assert.equal(sent.ok, true);
  for (const message of await received) {
    assert.deepEqual([message.seq, message.user_id, message.data.text], [sent.seq, "ann", CANARY]);
  }
  assert.equal((await lines.next()).value, `ann: ${CANARY}`);
  const fromScript = event(bob, "message");
  script.stdin.write(`from python ${CANARY}\n`);
  assert.equal((await fromScript).data.text, `from python ${CANARY}`);
  const signal = event(bob, "signal");
  await ann.emitWithAck("signal", { session_id: "desk-1", data: { typing: CANARY } });
  assert.equal((await signal).user_id, "ann");

  const left = event(ann, "user_left");
  script.stdin.end();
  assert.deepEqual([(await left).user_id], ["carl"]);
  const gone = event(ann, "user_left");
  await bob.emitWithAck("leave", { session_id: "desk-1" });
  assert.equal((await gone).participant_count, 1);

  for (const outsider of [elsewhere, abroad]) {
    const count = await outsider.emitWithAck("participants", { session_id: outsider === abroad ? "desk-1" : "desk-2" });
    assert.equal(count.participant_count, 1);
    assert.ok(!outsider.received.some((text) => text.includes(CANARY)), "the canary leaked");
  }
});
