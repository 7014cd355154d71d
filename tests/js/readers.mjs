// Stock clients that go on through whatever happens to the servers. Each line on stdin is answered
// with what all of them have seen so far.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const { FLOORCAST_URL: url, FLOORCAST_TOKEN: token, FLOORCAST_TOPIC: topic } = process.env;
const event = topic.split(":")[0].toLowerCase();

class Reader {
  // A position that the server gave, and what came with it or after it.
  position = null;
  connects = 0;
  // How often it was had back, and had no need to ask for anything.
  recovered = 0;
  errors = [];
  resets = 0;
  gaps = 0;
  trades = [];
  received = 0;

  constructor(transports) {
    this.socket = io(`${url}/market`, { forceNew: true, auth: { token }, transports });
    this.socket.on("connect", () => this.come());
    this.socket.on("connect_error", (error) => this.errors.push(error.message));
    this.socket.on(event, (message) => this.take(message));
  }

  come() {
    this.connects += 1;
    // What was never answered is asked for again: an answer that was cut off does not come.
    if (this.socket.recovered && this.position) this.recovered += 1;
    else this.subscribe();
  }

  subscribe() {
    const since = this.position ? { [topic]: this.position } : {};
    this.socket.emit("subscribe", { topics: [topic], since }, (reply) => {
      const answer = reply.topics?.[topic] ?? reply;
      if (answer.error) {
        // Such as a server that is going down while it is asked.
        this.errors.push(answer.error.code);
        setTimeout(() => this.socket.connected && this.subscribe(), 100);
        return;
      }
      const { epoch, seq, recovered, missed } = answer;
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
    const { connects, recovered, errors, resets, gaps, trades, received, socket } = this;
    const { connected, active } = socket;
    const transport = connected ? socket.io.engine.transport.name : null;
    return { connects, recovered, errors, resets, gaps, trades, received, connected, active, transport };
  }
}

const readers = JSON.parse(process.env.FLOORCAST_READERS).map((transports) => new Reader(transports));
for await (const _ of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(readers.map((reader) => reader.report())));
}
process.exit(0);
