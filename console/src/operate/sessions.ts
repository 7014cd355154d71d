/** Sessions: who is in one, its messages; to remove a user, or to close it. */
import { el, Text } from "../kit/elements.js";
import { age, clock, counted } from "../kit/format.js";
import type { Context } from "../place.js";
import { ask } from "./ask.js";
import type { SessionDetail, SessionInfo, SessionLine } from "./figures.js";
import { Pages } from "./pages.js";
import { Table } from "./table.js";
import { type Surroundings, type View } from "./view.js";

const SHOWN_MESSAGES = 50;

type Member = SessionDetail["participants"][number];

export class SessionsView implements View {
  readonly id = "sessions";
  readonly title = "Sessions";
  readonly element: HTMLElement;
  readonly #pages: Pages;
  readonly #table: Table<SessionInfo>;
  readonly #detail: HTMLElement;
  readonly #title = new Text();
  readonly #members: Table<Member>;
  readonly #log = el("ol");
  readonly #close: HTMLButtonElement;
  #opened: string | null = null;
  #shownSeq = -1;

  constructor(
    private readonly context: Context,
    private readonly surroundings: Surroundings,
  ) {
    this.#pages = new Pages(() => surroundings.refreshSoon());
    this.#table = new Table<SessionInfo>(
      "Sessions",
      [
        { title: "Session", text: (each) => each.session_id, isText: true },
        { title: "Users", text: (each) => `${each.participant_count}` },
        { title: "State", text: (each) => (each.closed ? "closed" : "open"), isText: true },
      ],
      (each) => each.session_id,
      [{ label: "Open", run: (each) => this.#open(each.session_id) }],
      "No session is open.",
    );
    this.#members = new Table<Member>(
      "Users in the session",
      [
        { title: "User", text: (each) => each.user_id, isText: true },
        { title: "Connections", text: (each) => `${each.connections}` },
        { title: "Since", text: (each) => age(context.client.age(each.joined_at)) },
      ],
      (each) => each.user_id,
      [{ label: "Kick", isDangerous: true, run: (each) => void this.#kick(each.user_id) }],
      "Nobody is in it.",
    );
    this.#close = el("button", { type: "button", class: "danger", click: () => void this.#closeSession() }, "Close session");
    this.#detail = el(
      "section",
      { class: "detail", "aria-label": "The opened session", hidden: true },
      el("header", {}, el("h3", {}, this.#title.node), this.#close),
      this.#members.element,
      el(
        "div",
        { class: "events rows", tabindex: "0", role: "group", "aria-label": "Messages of the session" },
        this.#log,
      ),
    );
    this.element = el(
      "div",
      { class: "listing" },
      el("div", { class: "tools" }, this.#pages.element),
      el("div", { class: "halves" }, this.#table.element, this.#detail),
    );
  }

  async refresh(): Promise<void> {
    const answer = await this.context.api.get<{ sessions: SessionInfo[]; next_cursor?: string }>(
      `sessions?${this.#pages.query}`,
    );
    this.#table.show(answer.sessions);
    this.#pages.set(answer.next_cursor);
    await this.#refreshDetail();
  }

  async #refreshDetail(): Promise<void> {
    const id = this.#opened;
    if (id === null) {
      return;
    }
    const path = `sessions/${encodeURIComponent(id)}`;
    const session = await this.context.api.get<SessionDetail>(path);
    this.#title.set(`${id}${session.closed ? ", closed" : ""}`);
    this.#members.show(session.participants);
    this.#close.disabled = session.closed;
    if (session.seq !== this.#shownSeq) {
      const { messages } = await this.context.api.get<{ messages: SessionLine[] }>(
        `${path}/history?limit=${SHOWN_MESSAGES}`,
      );
      this.#log.replaceChildren(...[...messages].reverse().map(line));
      this.#shownSeq = session.seq;
    }
    this.#detail.toggleAttribute("hidden", false);
  }

  #open(id: string): void {
    this.#opened = id;
    this.#shownSeq = -1;
    this.surroundings.refreshSoon();
  }

  async #kick(user: string): Promise<void> {
    const id = this.#opened ?? "";
    if (await ask(`Kick ${user}?`, `${user} is removed from ${id} on every device, and may join again.`, "Kick")) {
      await this.#act(`Kicked ${user} out of ${id}`, () =>
        this.context.api.post(`sessions/${encodeURIComponent(id)}/kick`, { user }),
      );
    }
  }

  async #closeSession(): Promise<void> {
    const id = this.#opened ?? "";
    if (await ask(`Close ${id}?`, "It ends for everybody, and nobody can join it any more.", "Close it")) {
      await this.#act(`Closed ${id}`, () => this.context.api.delete(`sessions/${encodeURIComponent(id)}`));
    }
  }

  async #act(done: string, call: () => Promise<{ connections: number }>): Promise<void> {
    try {
      const { connections } = await call();
      this.surroundings.report("good", `${done}: ${counted(connections, "connection")}`);
    } catch (error) {
      this.surroundings.report("problem", (error as Error).message);
    }
    this.surroundings.refreshSoon();
  }
}

function line({ user_id: user, ts, data }: SessionLine): HTMLElement {
  const text = typeof data["text"] === "string" ? data["text"] : JSON.stringify(data);
  return el("li", {}, el("time", {}, clock(ts)), el("b", {}, user), el("span", {}, text));
}
