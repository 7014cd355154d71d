/** The place *Operate*: nodes, connections, topics and sessions, over the HTTP API. */
import { el, Text } from "../kit/elements.js";
import type { Context, Place, PlaceShortcut, PlaceView } from "../place.js";
import { ConnectionsView } from "./connections.js";
import { EventLog } from "./log.js";
import { Overview } from "./overview.js";
import { Poller } from "./poller.js";
import { SessionsView } from "./sessions.js";
import { Tabs } from "./tabs.js";
import { TopicsView } from "./topics.js";
import type { Surroundings, View } from "./view.js";

const OVERVIEW_MS = 2_000;
const LIST_MS = 3_000;

class OperateView implements PlaceView {
  static readonly shortcuts: readonly PlaceShortcut<OperateView>[] = [
    { keys: ["["], text: "The list before", run: (view) => view.#tabs.step(-1) },
    { keys: ["]"], text: "The next list", run: (view) => view.#tabs.step(1) },
    { keys: ["/"], text: "Search the list", run: (view) => view.#search() },
  ];
  readonly #problem = new Text();
  readonly #log = new EventLog();
  readonly #pollers: readonly [Poller, Poller];
  readonly #tabs: Tabs;
  #shown: View;

  constructor(
    private readonly context: Context,
    section: HTMLElement,
  ) {
    const overview = new Overview(context, this.#log);
    const surroundings: Surroundings = {
      report: (kind, text) => this.#report(kind, text),
      refreshSoon: () => this.#pollers[1].now(),
    };
    const connections = new ConnectionsView(context, surroundings);
    const views: View[] = [connections, new TopicsView(context, surroundings)];
    if (context.access.may("session:moderate")) {
      views.push(new SessionsView(context, surroundings));
    }
    const events = { id: "events", title: "Events", element: this.#log.element, refresh: async () => {} };
    views.push(overview.health, events);
    this.#shown = connections;
    this.#tabs = new Tabs(views, (view) => {
      this.#shown = view;
      this.#pollers[1].now();
    });
    section.append(
      el("p", { class: "problem", role: "status" }, this.#problem.node),
      overview.element,
      this.#tabs.element,
    );
    this.#pollers = [
      new Poller(() => this.#refresh(overview), OVERVIEW_MS),
      new Poller(() => this.#refresh(this.#shown), LIST_MS),
    ];
  }

  show(): void {
    this.#pollers.forEach((each) => each.start());
  }

  hide(): void {
    this.#pollers.forEach((each) => each.stop());
  }

  #search(): void {
    this.#shown.element.querySelector<HTMLInputElement>("input[type=search]")?.select();
  }

  async #refresh(part: { refresh(): Promise<void> }): Promise<void> {
    try {
      await part.refresh();
      this.#problem.set("");
    } catch (error) {
      this.#problem.set((error as Error).message);
    }
  }

  #report(kind: "good" | "problem", text: string): void {
    this.context.toasts.show(text, kind);
    this.#log.add(kind, text);
  }
}

export const operate: Place<OperateView> = {
  id: "operate",
  title: "Operate",
  shortcuts: OperateView.shortcuts,
  scope: "admin",
  open: (context, section) => new OperateView(context, section),
};
