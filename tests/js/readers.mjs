// Runs stock clients that keep reading one topic through any outage. Answers each line on stdin
// with a report of all clients.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const { FLOORCAST_URL: url, FLOORCAST_TOKEN: token, FLOORCAST_TOPIC: topic } = process.env;
const event = topic.split(":")[0].toLowerCase();

class Reader {
  // The position of the last received message.
  position = null;
  connects = 0;
  // Reconnects with recovery, which need no new subscribe.
  recovered = 0;
  // Those without recovery although the connection had ended with a goodbye.
  lost = 0;
  hasGoodbye = false;
  errors = [];
  resets = 0;
  gaps = 0;
  trades = [];
  received = 0;

  constructor(transports) {
    this.socket = io(`${url}/market`, { forceNew: true, auth: { token }, transports });
    this.socket.on("connect", () => this.connect());
    this.socket.on("connect_error", (error) => this.errors.push(error.message));
    this.socket.on("goodbye", () => (this.hasGoodbye = true));
    this.socket.on(event, (message) => this.take(message));
  }

  connect() {
    this.connects += 1;
    // Subscribe again if the first reply was lost with its connection.
    if (this.socket.recovered && this.position) this.recovered += 1;
    else {
      if (this.hasGoodbye) this.lost += 1;
      this.subscribe();
    }
    this.hasGoodbye = false;
  }

  subscribe() {
    const since = this.position ? { [topic]: this.position } : {};
    this.socket.emit("subscribe", { topics: [topic], since }, (reply) => {
      const topicReply = reply.topics?.[topic] ?? reply;
      if (topicReply.error) {
        // For example, the server is draining.
        this.errors.push(topicReply.error.code);
        setTimeout(() => this.socket.connected && this.subscribe(), 100);
        return;
      }
      const { epoch, seq, recovered, missed } = topicReply;
      if (recovered) missed.forEach((message) => this.take(message));
      else if (this.connects > 1) this.resets += 1;
      this.position = { epoch, seq };
    });
  }

  take({ epoch, seq, prev, data, type }) {
    if (epoch !== this.position?.epoch || prev !== this.position.seq) this.gaps += 1;
    this.position = { epoch, seq };
    if (type !== "heartbeat") this.received += 1;
    this.trades.push(...(data?.trades ?? []).map((trade) => trade.id));
  }

  report() {
    const { connects, recovered, lost, errors, resets, gaps, trades, received, socket } = this;
    const { connected, active } = socket;
    const transport = connected ? socket.io.engine.transport.name : null;
    return { connects, recovered, lost, errors, resets, gaps, trades, received, connected, active, transport };
  }
}

const readers = JSON.parse(process.env.FLOORCAST_READERS).map((transports) => new Reader(transports));
for await (const _ of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(readers.map((reader) => reader.report())));
}
process.exit(0);
