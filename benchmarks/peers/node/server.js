"use strict";
// Node's Socket.IO with its defaults, answering the same commands as the Python peers.
const http = require("http");
const readline = require("readline");
const { Server } = require("socket.io");

const server = http.createServer();
const io = new Server(server);
const market = io.of("/market");
const data = { bid: "64250.10", ask: "64250.12", last: "64250.11", volume: "1234.5678" };
let seq = 0;

market.on("connection", (socket) => {
  socket.on("subscribe", (request, ack) => {
    request.topics.forEach((topic) => socket.join(topic));
    ack({ ok: true });
  });
});

function publish() {
  seq += 1;
  market.to("PRICE:BTCUSDT").emit("price", {
    stream: "PRICE", symbol: "BTCUSDT", type: "update", epoch: "0a1b2c3d",
    seq, prev: seq - 1, ts: Date.now(), data,
  });
}

const cpu = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6; };
const now = () => Number(process.hrtime.bigint()) / 1e9;
const say = (body) => console.log(JSON.stringify(body));
const turn = () => new Promise((resolve) => setImmediate(resolve));

server.listen(0, "127.0.0.1", 4096, async () => {
  say({ port: server.address().port });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, count, mode] = line.split(" ");
    if (command === "publish") {
      const began = now(), before = cpu();
      for (let i = 0; i < Number(count); i++) {
        publish();
        if (mode === "turn") await turn();
      }
      say({ began, cpu_before: before });
    } else if (command === "stats") {
      const used = cpu();
      global.gc();
      say({ rss: process.memoryUsage().rss, cpu: used, cpu_collected: cpu() });
    }
  }
});
