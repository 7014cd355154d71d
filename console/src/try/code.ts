/** The code of an experiment in three languages, to copy with the token in it. */
import { choice, el, Text } from "../kit/elements.js";
import { preference } from "../kit/preferences.js";
import type { Context } from "../place.js";

const LANGUAGES = [
  ["javascript", "JavaScript"],
  ["python", "Python"],
  ["curl", "curl"],
] as const;
type Language = (typeof LANGUAGES)[number][0];
export type Sources = Record<Language, string>;

const preferred = preference<Language>("language", "javascript");
const SAID_MS = 1_500;
const ALL: Code[] = [];

export class Code {
  readonly element: HTMLDetailsElement;
  readonly #text = new Text();
  readonly #copyLabel = new Text();
  readonly #choice;
  #sources: (token: string) => Sources = () => ({ javascript: "", python: "", curl: "" });

  constructor(
    private readonly context: Context,
    title: string,
  ) {
    this.#copyLabel.set("Copy");
    this.#choice = choice("Language", LANGUAGES, preferred.get(), (language) => {
      preferred.set(language);
      // All experiments show the same language.
      ALL.forEach((each) => each.#show());
    });
    const scroller = el(
      "pre",
      { tabindex: "0", role: "group", "aria-label": `Code: ${title}` },
      el("code", {}, this.#text.node),
    );
    this.element = el(
      "details",
      { class: "code", toggle: () => this.#show() },
      el("summary", {}, "Code"),
      el(
        "div",
        { class: "tools" },
        this.#choice.element,
        el("button", { type: "button", click: () => void this.#copy() }, this.#copyLabel.node),
      ),
      scroller,
    );
    context.access.onChange(() => this.#show());
    ALL.push(this);
  }

  set(sources: (token: string) => Sources): void {
    this.#sources = sources;
    this.#show();
  }

  #show(): void {
    this.#choice.mark(preferred.get());
    if (this.element.open) {
      this.#text.set(this.#code);
    }
  }

  /** A token that was entered stays out of the page. */
  get #code(): string {
    const { access } = this.context;
    return this.#sources(access.isDemo ? access.current : "TOKEN")[preferred.get()];
  }

  async #copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.#code);
      this.#copyLabel.set("Copied");
    } catch {
      this.context.toasts.show("The browser does not allow it: select the code, and copy it", "warning");
    }
    setTimeout(() => this.#copyLabel.set("Copy"), SAID_MS);
  }
}
