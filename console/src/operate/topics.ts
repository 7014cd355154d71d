/** Topics that somebody is subscribed to: subscribers, rate, position, state. */
import { el } from "../kit/elements.js";
import { age } from "../kit/format.js";
import type { Context } from "../place.js";
import { Rates, type Topic } from "./figures.js";
import { Pages } from "./pages.js";
import { Table } from "./table.js";
import { perSecond, type Surroundings, type View } from "./view.js";

const MAX_TEXT = 60;

export class TopicsView implements View {
  readonly id = "topics";
  readonly title = "Topics";
  readonly element: HTMLElement;
  readonly #search: HTMLInputElement;
  readonly #table: Table<Topic>;
  readonly #pages: Pages;
  readonly #rates = new Rates();

  constructor(
    private readonly context: Context,
    surroundings: Surroundings,
  ) {
    this.#pages = new Pages(() => surroundings.refreshSoon());
    this.#search = el("input", {
      type: "search",
      placeholder: "Topic",
      "aria-label": "Search for a topic",
      spellcheck: "false",
      autocomplete: "off",
      maxlength: String(MAX_TEXT),
      input: () => {
        this.#pages.reset();
        surroundings.refreshSoon();
      },
    });
    this.#table = new Table<Topic>(
      "Topics",
      [
        { title: "Topic", text: (each) => each.topic, isText: true },
        {
          title: "State",
          text: ({ state, since_ms: since }) =>
            since === undefined ? state : `${state} ${age(context.client.age(since))}`,
          isText: true,
          tone: ({ state }) => (state === "LIVE" ? "up" : "warn"),
        },
        { title: "Subscribers", text: (each) => `${each.subscribers}` },
        { title: "Updates/s", text: (each) => this.#rateOf(each) },
        { title: "Position", text: (each) => `${each.seq}`, hint: (each) => `epoch ${each.epoch}` },
      ],
      (each) => each.topic,
      [],
      "Nobody is subscribed to such a topic.",
    );
    this.element = el(
      "div",
      { class: "listing" },
      el("div", { class: "tools" }, this.#search, this.#pages.element),
      this.#table.element,
    );
  }

  async refresh(): Promise<void> {
    const text = this.#search.value.trim().toUpperCase().replace(/[^A-Z0-9._/:@*_-]/g, "");
    const match = text === "" ? "" : `&match=${encodeURIComponent(`*${text}*`)}`;
    const answer = await this.context.api.get<{ topics: Topic[]; next_cursor?: string }>(
      `topics?${this.#pages.query}${match}`,
    );
    const heads = answer.topics.map(({ topic, epoch, seq }) => [`${topic} ${epoch}`, seq] as const);
    this.#rates.add(Object.fromEntries(heads), performance.now());
    this.#table.show(answer.topics);
    this.#pages.set(answer.next_cursor);
  }

  #rateOf({ topic, epoch }: Topic): string {
    return perSecond(this.#rates.get(`${topic} ${epoch}`));
  }
}
