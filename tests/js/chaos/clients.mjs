// Runs stock clients that rely on `socket.recovered`; answers commands on stdin with reports.
import { createInterface } from "node:readline";
import { Manager } from "socket.io-client";
import { Kept, Merged } from "./topic.mjs";

const { url, clients, topics, sessions } = JSON.parse(process.env.FLOORCAST_CHAOS);
const EVENTS = ["price", "orderbook", "trades", "user_data", "risk_alerts", "order_updates"];
const MERGED = ["PRICE", "ORDERBOOK"];

class Application {
  violations = [];
  connects = [];
  reasons = {};

  constructor(manager, namespace, { recovery, token, session_id }, followed) {
    this.recovery = recovery;
    this.followed = new Map(followed.map((each) => [each.name, each]));
    for (const each of followed) each.violations = this.violations;
    const auth = { token, session_id, ...(!recovery && { recovery }) };
    this.socket = manager.socket(namespace, { auth });
    let id = null;
    this.socket.on("connect", () => {
      const recovered = this.socket.recovered === true;
      this.connects.push({ recovered, same: this.socket.id === id });
      id = this.socket.id;
      if (!recovered) this.followed.forEach((each) => (each.live = false));
      // Subscribe again if a reply was lost with its connection.
      this.request([...this.followed.values()].filter((each) => !each.live));
    });
    // An offset starts with the tag of its node.
    this.socket.on("welcome", (_, offset) => (this.connects.at(-1).node = offset?.split("-")[0]));
    this.socket.on("disconnect", (reason) => (this.reasons[reason] = (this.reasons[reason] ?? 0) + 1));
    this.socket.on("connect_error", ({ data }) => data && this.violations.push(`refused ${JSON.stringify(data)}`));
    for (const event of ["error", "goodbye"]) {
      this.socket.on(event, (body) => this.violations.push(`${event} ${JSON.stringify(body)}`));
    }
  }

  get settled() {
    return this.socket.connected && [...this.followed.values()].every((each) => each.live);
  }

  report(whole) {
    const { recovery, settled, violations, connects, reasons } = this;
    const entries = [...this.followed].map(([name, each]) => [name, whole ? each.report() : each.position?.seq]);
    return { recovery, settled, violations, connects, reasons, followed: Object.fromEntries(entries) };
  }
}

class Market extends Application {
  constructor(manager, options) {
    super(manager, "/market", options, topics.map((name) => new (MERGED.includes(name.split(":")[0]) ? Merged : Kept)(name)));
    for (const event of EVENTS) {
      this.socket.on(event, (message) => {
        const { stream, symbol } = message;
        this.followed.get(symbol ? `${stream}:${symbol}` : stream).receive(message);
      });
    }
  }

  request(wanted) {
    // Half of the topics are conflated.
    const half = (each) => topics.indexOf(each.name) % 2;
    for (const [interval_ms, some] of [[0, wanted.filter((each) => !half(each))], [100, wanted.filter(half)]]) {
      if (!some.length) continue;
      const since = Object.fromEntries(some.filter((each) => each.since).map((each) => [each.name, each.since]));
      const request = { topics: some.map((each) => each.name), interval_ms, since };
      this.socket.emit("subscribe", request, (reply) => {
        for (const each of some) {
          const answer = reply.topics?.[each.name];
          if (answer?.status === "CONNECTED") each.takeReply(answer);
          else this.violations.push(`subscribe ${JSON.stringify(answer ?? reply)}`);
        }
      });
    }
  }
}

class Member extends Application {
  constructor(manager, options) {
    super(manager, "/session", options, sessions.map((name) => new Kept(name, (data) => data.is)));
    this.socket.on("message", (message) => this.followed.get(message.session_id).receive(message));
    for (const event of ["user_joined", "user_left", "session_closed"]) {
      this.socket.on(event, (body) => this.presence.push([event, body.session_id, body.user_id]));
    }
  }

  // Received presence events.
  presence = [];

  request(wanted) {
    for (const each of wanted) {
      this.socket.emit("join", { session_id: each.name, since: each.since }, (reply) => {
        if (reply.ok) each.takeReply({ ...reply, missed: reply.messages });
        else this.violations.push(`join ${JSON.stringify(reply)}`);
      });
    }
  }

  report(whole) {
    return { ...super.report(whole), presence: this.presence };
  }
}

const running = clients.flatMap((options) => {
  // Short reconnect delays for a short run; all other options keep their deviolations.
  const manager = new Manager(url, {
    ...(options.transports && { transports: options.transports }),
    reconnectionDelay: 30,
    reconnectionDelayMax: 200,
    timeout: 1000,
  });
  // Both namespaces share one connection, as in a browser.
  return [new Market(manager, options), new Member(manager, options)];
});

for await (const line of createInterface({ input: process.stdin })) {
  if (line === "begin") running.forEach((each) => (each.presence = []));
  const reports = running.map((each) => each.report(line === "whole"));
  process.stdout.write(`${JSON.stringify(reports)}\n`);
}
running.forEach((each) => each.socket.disconnect());
