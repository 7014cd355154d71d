/** Connections: who, from where, how far behind; to end them, or to revoke their tokens. */
import { el } from "../kit/elements.js";
import { age, counted } from "../kit/format.js";
import type { Context } from "../place.js";
import { ask } from "./ask.js";
import type { Connection } from "./figures.js";
import { Pages } from "./pages.js";
import { type Column, Table } from "./table.js";
import { type Surroundings, type View, whole } from "./view.js";

const SHOWN_TOPICS = 40;

export class ConnectionsView implements View {
  readonly id = "connections";
  readonly title = "Connections";
  readonly element: HTMLElement;
  readonly #user: HTMLInputElement;
  readonly #topic: HTMLInputElement;
  readonly #table: Table<Connection>;
  readonly #pages: Pages;

  constructor(
    private readonly context: Context,
    private readonly surroundings: Surroundings,
  ) {
    const filter = (label: string) =>
      el("input", {
        type: "search",
        placeholder: label,
        "aria-label": `${label} of the connections`,
        spellcheck: "false",
        autocomplete: "off",
        change: () => this.#filter(),
      });
    this.#user = filter("User");
    this.#topic = filter("Topic");
    this.#pages = new Pages(() => surroundings.refreshSoon());
    this.#table = new Table(
      "Connections",
      this.#columns(),
      (each) => each.connection_id,
      [
        { label: "End", isDangerous: true, run: (each) => void this.#end(each) },
        { label: "Revoke", isDangerous: true, run: (each) => void this.#revoke(each) },
      ],
      "No connection matches.",
    );
    this.element = el(
      "div",
      { class: "listing" },
      el("div", { class: "tools" }, this.#user, this.#topic, this.#pages.element),
      this.#table.element,
    );
  }

  async refresh(): Promise<void> {
    const filters = [
      ["user", this.#user.value.trim()],
      ["topic", this.#topic.value.trim()],
    ] as const;
    const query = filters
      .filter(([, value]) => value !== "")
      .map(([name, value]) => `&${name}=${encodeURIComponent(value)}`)
      .join("");
    const answer = await this.context.api.get<{ connections: Connection[]; next_cursor?: string }>(
      `connections?${this.#pages.query}${query}`,
    );
    this.#table.show([...answer.connections].sort(byUser));
    this.#pages.set(answer.next_cursor);
  }

  #columns(): Column<Connection>[] {
    const now = () => this.context.client.now();
    return [
      { title: "User", text: (each) => each.user_id, isText: true, hint: (each) => each.connection_id },
      { title: "Address", text: (each) => each.ip, isText: true },
      { title: "Namespace", text: (each) => each.namespace, isText: true, hint: (each) => `node ${each.node}` },
      { title: "Since", text: (each) => age(now() - each.connected_at) },
      {
        title: "Topics",
        text: (each) => `${each.subscriptions.length}`,
        hint: ({ subscriptions }) =>
          subscriptions
            .slice(0, SHOWN_TOPICS)
            .map(({ topic, interval_ms: ms }) => (ms === 0 ? topic : `${topic} (${ms} ms)`))
            .join("\n"),
      },
      { title: "Sessions", text: (each) => `${each.sessions.length}`, hint: (each) => each.sessions.join("\n") },
      {
        title: "Lag",
        text: (each) => whole(each.lag),
        hint: () => "messages that are not sent yet",
        tone: ({ bytes_waiting: waiting }) => (waiting > 0 ? "warn" : ""),
      },
      { title: "Waiting", text: (each) => `${whole(each.bytes_waiting / 1_024)} KiB` },
      { title: "Merged", text: (each) => whole(each.merged) },
    ];
  }

  #filter(): void {
    this.#pages.reset();
    this.surroundings.refreshSoon();
  }

  async #end({ user_id: user, namespace, ip, connection_id: id }: Connection): Promise<void> {
    const text = `${user} at ${ip} is disconnected from ${namespace}, and does not come back by itself.`;
    if (await ask("End this connection?", text, "End it")) {
      const path = `connections/${encodeURIComponent(id)}/disconnect`;
      await this.#act(`Ended a connection of ${user}`, () => this.context.api.post(path));
    }
  }

  async #revoke({ user_id: user }: Connection): Promise<void> {
    const text = `All tokens of ${user} issued until now are refused on every node, and the connections end. This may be your own user.`;
    if (await ask(`Revoke the tokens of ${user}?`, text, "Revoke them")) {
      await this.#act(`Revoked the tokens of ${user}`, () =>
        this.context.api.post<{ closed?: number }>("tokens/revoke", { user }),
      );
    }
  }

  async #act(done: string, call: () => Promise<{ closed?: number }>): Promise<void> {
    try {
      const { closed } = await call();
      const ended = closed === undefined ? "" : `: ${counted(closed, "connection")} ended`;
      this.surroundings.report("good", `${done}${ended}`);
    } catch (error) {
      this.surroundings.report("problem", (error as Error).message);
    }
    this.surroundings.refreshSoon();
  }
}

/** Those of a page; the server knows no order of its own. */
function byUser(a: Connection, b: Connection): number {
  return a.user_id === b.user_id ? a.connected_at - b.connected_at : a.user_id < b.user_id ? -1 : 1;
}
