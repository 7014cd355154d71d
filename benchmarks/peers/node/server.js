"use strict";
// Runs Socket.IO for Node with its defaults, and serves the commands of the Python peers.
const http = require("http");
const readline = require("readline");
const { Server } = require("socket.io");

const server = http.createServer();
const io = new Server(server);
const market = io.of("/market");
const price = { bid: "64250.10", ask: "64250.12", last: "64250.11", volume: "1234.5678" };
let seq = 0;

market.on("connection", (socket) => {
  socket.on("subscribe", (request, ack) => {
    request.topics.forEach((topic) => socket.join(topic));
    ack({ ok: true });
  });
  socket.on("publish", (request, ack) => {
    const positions = request.messages.map(({ topic, data }) => {
      publish(topic.slice("PRICE:".length), data);
      return { epoch: "0a1b2c3d", seq };
    });
    ack({ ok: true, positions });
  });
});

io.of("/session").on("connection", (socket) => {
  socket.on("join", (request, ack) => {
    socket.join(request.session_id);
    ack({ ok: true });
  });
  socket.on("send", (request, ack) => {
    seq += 1;
    const id = seq.toString(16).padStart(16, "0");
    const receipt = { id, epoch: "0a1b2c3d", seq, ts: Date.now() };
    io.of("/session").to(request.session_id).emit("message", {
      session_id: request.session_id, ...receipt, user_id: "load", data: request.data,
    });
    ack({ ok: true, ...receipt });
  });
});

function publish(symbol, data) {
  seq += 1;
  market.to(`PRICE:${symbol}`).emit("price", {
    stream: "PRICE", symbol, type: "update", epoch: "0a1b2c3d",
    seq, prev: seq - 1, ts: Date.now(), data,
  });
}

const cpu = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6; };
const now = () => Number(process.hrtime.bigint()) / 1e9;
const reply = (body) => console.log(JSON.stringify(body));
const turn = () => new Promise((resolve) => setImmediate(resolve));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// As in control.py: a schedule that does not wait, and the due time and symbol in the volume.
async function pace(rate, seconds, topics, batchMs, noteBytes = 0) {
  const body = noteBytes ? { ...price, note: "x".repeat(noteBytes) } : price;
  const cpuBefore = cpu(), began = now(), ends = began + seconds;
  let published = 0, late = 0;
  for (let batch = 0; batch < Math.floor(seconds * 1000 / batchMs); batch++) {
    const due = began + batch * batchMs / 1000, wait = due - now();
    if (wait > 0) await sleep(wait * 1000);
    else if (batch % 4 === 0) await turn();
    late = Math.max(late, now() - due);
    for (let i = 0; i < Math.floor(rate * batchMs / 1000) && now() < ends; i++) {
      const index = String(published % topics);
      const moment = String(Math.round(due * 1e9)).padStart(20, "0");
      published += 1;
      publish(`S${index.padStart(3, "0")}`, {
        ...body, volume: `${moment}.${index.padStart(4, "0")}`,
      });
    }
  }
  return { began, cpu_before: cpuBefore, published, late };
}

server.listen(0, "127.0.0.1", 4096, async () => {
  reply({ port: server.address().port });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, ...words] = line.split(" ");
    if (command === "publish") {
      const began = now(), before = cpu();
      for (let i = 0; i < Number(words[0]); i++) {
        publish("BTCUSDT", price);
        if (words[1] === "turn") await turn();
      }
      reply({ began, cpu_before: before });
    } else if (command === "pace") {
      reply(await pace(...words.map(Number)));
    } else if (command === "stats") {
      const used = cpu();
      global.gc();
      reply({ rss: process.memoryUsage().rss, cpu: used, cpu_collected: cpu() });
    }
  }
});
