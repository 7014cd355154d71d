/** The log of events: what has changed at the server since the page was opened, and what you did. */
import { el } from "../kit/elements.js";
import { clock } from "../kit/format.js";
import type { Feed, NodeInfo, Stats } from "./figures.js";
import { whole } from "./view.js";

const MAX_ENTRIES = 500;

export type EventKind = "info" | "good" | "warning" | "problem";

export class EventLog {
  readonly element: HTMLElement;
  readonly #list = el("ol");
  #nodes: ReadonlyMap<string, NodeInfo> | null = null;
  #stats: Stats | null = null;

  constructor() {
    this.element = el(
      "div",
      { class: "events rows", role: "log", tabindex: "0", "aria-label": "Events since this page was opened" },
      this.#list,
    );
    this.add("info", "This page was opened");
  }

  add(kind: EventKind, text: string): void {
    const entry = el("li", { class: kind }, el("time", {}, clock(Date.now())), el("span", {}, text));
    this.#list.prepend(entry);
    while (this.#list.childElementCount > MAX_ENTRIES) {
      this.#list.lastElementChild?.remove();
    }
  }

  /** Note what differs from the answers before. */
  compare(stats: Stats, nodes: readonly NodeInfo[]): void {
    const byName = new Map(nodes.map((each) => [each.node, each]));
    if (this.#nodes !== null && stats.incomplete.length === 0) {
      this.#compareNodes(this.#nodes, byName);
    }
    if (this.#stats !== null) {
      this.#compareStats(this.#stats, stats);
    }
    if (stats.incomplete.length === 0) {
      this.#nodes = byName;
    }
    this.#stats = stats;
  }

  #compareNodes(before: ReadonlyMap<string, NodeInfo>, now: ReadonlyMap<string, NodeInfo>): void {
    for (const [name, node] of now) {
      const known = before.get(name);
      if (known === undefined) {
        this.add("good", `The node ${name} has joined`);
      } else {
        if (known.ready !== node.ready) {
          this.add(node.ready ? "good" : "problem", `The node ${name} is ${node.ready ? "ready" : "not ready"}`);
        }
        this.#compareFeeds(name, known.feeds ?? [], node.feeds ?? []);
      }
    }
    for (const name of before.keys()) {
      if (!now.has(name)) {
        this.add("problem", `The node ${name} has gone`);
      }
    }
  }

  #compareFeeds(node: string, before: readonly Feed[], now: readonly Feed[]): void {
    for (const feed of now) {
      const known = before.find(({ name }) => name === feed.name);
      if (known !== undefined && known.live !== feed.live) {
        const state = feed.live ? "live" : "down";
        this.add(feed.live ? "good" : "problem", `The feed ${feed.name} of ${node} is ${state}`);
      }
    }
  }

  #compareStats(before: Stats, now: Stats): void {
    for (const [code, count] of Object.entries(now.refusals ?? {})) {
      const more = count - (before.refusals?.[code] ?? 0);
      if (more > 0) {
        this.add("warning", `${whole(more)} refused: ${code}`);
      }
    }
    const [lagged = 0, lagging = 0] = [before.figures["lagging"], now.figures["lagging"]];
    if (lagged === 0 && lagging > 0) {
      this.add("warning", `${lagging} slow clients are behind`);
    } else if (lagged > 0 && lagging === 0) {
      this.add("good", "No client is behind any more");
    }
  }
}
