/** The figures of all nodes: small plots, the nodes, their feeds, and refusals by code. */
import { el, Text } from "../kit/elements.js";
import { age, counted } from "../kit/format.js";
import type { Context } from "../place.js";
import { type Feed, type NodeInfo, Rates, type Stats } from "./figures.js";
import type { EventLog } from "./log.js";
import { Plot } from "./plot.js";
import { Table } from "./table.js";
import { perSecond, type View, whole } from "./view.js";

const MEGABYTE = 1 << 20;

type NodeFeed = Feed & { readonly node: string };
type Refusal = { readonly code: string; readonly count: number };

export class Overview {
  readonly element: HTMLElement;
  /** Shown under a tab. */
  readonly health: View;
  readonly #summary = new Text();
  readonly #plots = {
    deliveries: new Plot("Deliveries/s", perSecond),
    merged: new Plot("Merged/s", perSecond),
    lag: new Plot("Clients behind", (value) => `${value}`),
    memory: new Plot("Memory", (value) => `${value.toFixed(0)} MiB`),
  };
  readonly #rates = new Rates();
  readonly #feedRates = new Rates();
  readonly #refusalRates = new Rates();
  readonly #nodes: Table<NodeInfo>;
  readonly #feeds: Table<NodeFeed>;
  readonly #refusals: Table<Refusal>;

  constructor(
    private readonly context: Context,
    private readonly log: EventLog,
  ) {
    const now = () => context.client.now();
    this.#nodes = new Table<NodeInfo>(
      "Nodes",
      [
        { title: "Node", text: (each) => each.node, isText: true, hint: (each) => `process ${each.pid}` },
        {
          title: "State",
          text: (each) => (each.ready ? "ready" : "not ready"),
          isText: true,
          tone: (each) => (each.ready ? "up" : "down"),
        },
        { title: "Connections", text: (each) => `${each.connections}` },
        { title: "Topics", text: (each) => whole(each.figures["topics"] ?? 0) },
        { title: "Memory", text: ({ memory_bytes: bytes }) => (bytes === undefined ? "–" : `${(bytes / MEGABYTE).toFixed(0)} MiB`) },
        { title: "Up", text: (each) => age(now() - each.started_at) },
        { title: "Version", text: (each) => each.version },
      ],
      (each) => each.node,
    );
    this.#feeds = new Table<NodeFeed>(
      "Feeds",
      [
        { title: "Feed", text: (each) => each.name, isText: true, hint: (each) => `node ${each.node}` },
        { title: "State", text: (each) => (each.live ? "live" : "down"), isText: true, tone: (each) => (each.live ? "up" : "down") },
        { title: "Messages/s", text: (each) => perSecond(this.#feedRates.get(`${each.node} ${each.name}`)) },
        { title: "Silent for", text: (each) => age(each.silent_seconds * 1_000) },
        { title: "Failures", text: (each) => `${each.failures}`, tone: (each) => (each.failures > 0 ? "warn" : "") },
      ],
      (each) => `${each.node} ${each.name}`,
      [],
      "No node runs a feed.",
    );
    this.#refusals = new Table<Refusal>(
      "Refusals",
      [
        { title: "Refused with", text: (each) => each.code, isText: true },
        { title: "In all", text: (each) => whole(each.count) },
        { title: "In a second", text: (each) => perSecond(this.#refusalRates.get(each.code)) },
      ],
      (each) => each.code,
      [],
      "Nothing was refused.",
    );
    const { deliveries, merged, lag, memory } = this.#plots;
    this.element = el(
      "div",
      { class: "overview" },
      el("div", { class: "plots" }, deliveries.element, merged.element, lag.element, memory.element),
      el(
        "section",
        { class: "panel nodes", "aria-label": "Nodes" },
        el("header", {}, el("h2", {}, "Nodes"), el("span", { class: "hint" }, this.#summary.node)),
        this.#nodes.element,
      ),
    );
    this.health = {
      id: "health",
      title: "Feeds and refusals",
      element: el("div", { class: "listing" }, el("div", { class: "halves" }, this.#feeds.element, this.#refusals.element)),
      refresh: () => Promise.resolve(),
    };
  }

  async refresh(): Promise<void> {
    const { api } = this.context;
    const [stats, { nodes }] = await Promise.all([
      api.get<Stats>("stats"),
      api.get<{ nodes: NodeInfo[] }>("nodes"),
    ]);
    this.#show(stats, nodes);
    this.log.compare(stats, nodes);
  }

  #show(stats: Stats, nodes: readonly NodeInfo[]): void {
    const { figures, connections, users, incomplete, refusals = {} } = stats;
    this.#rates.add(figures, performance.now());
    this.#plots.deliveries.add(this.#rates.get("messages_out"));
    this.#plots.merged.add(this.#rates.get("merged"));
    this.#plots.lag.add(figures["lagging"] ?? 0);
    this.#plots.memory.add(nodes.reduce((sum, each) => sum + (each.memory_bytes ?? 0), 0) / MEGABYTE);
    const silent = incomplete.length === 0 ? "" : `, ${incomplete.join(", ")} does not answer`;
    this.#summary.set(`${counted(connections, "connection")} of ${counted(users, "user")}${silent}`);
    this.#nodes.show(nodes);
    const feeds = nodes.flatMap(({ node, feeds: own = [] }) => own.map((each) => ({ ...each, node })));
    this.#feedRates.add(
      Object.fromEntries(feeds.map((each) => [`${each.node} ${each.name}`, each.messages])),
      performance.now(),
    );
    this.#feeds.show(feeds);
    this.#refusalRates.add(refusals, performance.now());
    const codes = Object.entries(refusals).map(([code, count]) => ({ code, count }));
    this.#refusals.show(codes.sort((a, b) => b.count - a.count));
  }
}
