/** Publishing by hand: any topic, with its position or the refusal. */
import { FloorcastError } from "@floorcast/client";
import { BASE } from "../kit/access.js";
import { choice, el } from "../kit/elements.js";
import type { Context } from "../place.js";
import { Code, type Sources } from "./code.js";

const KINDS = [
  ["PRICE", "Price"],
  ["TRADES", "Trade"],
  ["ORDERBOOK", "Book"],
] as const;
type Kind = (typeof KINDS)[number][0];

const MAX_LINES = 20;
const SCOPE = "market:publish";

export class PublishExperiment {
  readonly element: HTMLElement;
  readonly #symbol: HTMLInputElement;
  readonly #data: HTMLTextAreaElement;
  readonly #button: HTMLButtonElement;
  readonly #log = el("ol");
  readonly #code: Code;
  #kind: Kind = "PRICE";
  #trade = 0;

  constructor(private readonly context: Context) {
    const kind = choice("Kind of message", KINDS, this.#kind, (each) => {
      this.#kind = each;
      this.#data.value = this.#example();
      this.#showCode();
    });
    const changed = () => this.#showCode();
    this.#symbol = el("input", {
      value: "MYCOIN",
      "aria-label": "Symbol",
      maxlength: "32",
      spellcheck: "false",
      input: changed,
    });
    this.#data = el("textarea", { "aria-label": "Data, as JSON", rows: "5", spellcheck: "false", input: changed });
    this.#data.value = this.#example();
    this.#button = el("button", { class: "primary" }, "Publish");
    this.#code = new Code(context, "publish");
    this.element = el(
      "section",
      { class: "panel experiment publish", "aria-label": "Publish by hand" },
      el("header", {}, el("h2", {}, "Publish by hand"), kind.element),
      el(
        "div",
        { class: "content" },
        el(
          "p",
          { class: "hint" },
          "Everybody who is subscribed gets it at once. A new symbol appears in ",
          el("a", { href: "#watch" }, "Watch"),
          " by itself.",
        ),
        el(
          "form",
          { submit: (event: Event) => void this.#submit(event) },
          this.#symbol,
          this.#data,
          this.#button,
        ),
        el("div", { class: "positions", role: "log", "aria-label": "Published" }, this.#log),
        this.#code.element,
      ),
    );
    this.#showCode();
    this.#showRight();
    context.access.onChange(() => this.#showRight());
  }

  focus(): void {
    this.#data.focus();
  }

  #showRight(): void {
    const may = this.context.access.may(SCOPE);
    this.#button.disabled = !may;
    this.#button.title = may ? "" : `The token needs the scope ${SCOPE}`;
  }

  get #topic(): string {
    return `${this.#kind}:${this.#symbol.value.trim().toUpperCase()}`;
  }

  #example(): string {
    const ts = Math.round(this.context.client.now());
    const examples: Record<Kind, string> = {
      PRICE: '{"bid": "1.00", "ask": "1.02",\n "last": "1.01", "volume": "5"}',
      TRADES: `{"trades": [\n  {"id": "hand-${this.#trade + 1}", "price": "1.01", "qty": "2",\n   "side": "buy", "ts": ${ts}}\n]}`,
      ORDERBOOK: '{"bids": [["1.00", "4"], ["0.99", "9"]],\n "asks": [["1.02", "3"], ["1.03", "7"]]}',
    };
    return examples[this.#kind];
  }

  async #submit(event: Event): Promise<void> {
    event.preventDefault();
    const topic = this.#topic;
    try {
      const data = JSON.parse(this.#data.value) as Record<string, unknown>;
      const type = this.#kind === "ORDERBOOK" ? { type: "snapshot" as const } : {};
      const [position] = await this.context.client.market.publish({ topic, data, ...type });
      this.#note("good", topic, `position ${position?.seq}`);
    } catch (error) {
      const code = error instanceof FloorcastError ? `${error.code}: ` : "";
      this.#note("problem", topic, `${code}${(error as Error).message}`);
    }
    if (this.#kind === "TRADES") {
      this.#trade += 1;
      this.#data.value = this.#example();
    }
  }

  #note(kind: string, topic: string, text: string): void {
    this.#log.prepend(el("li", {}, el("b", {}, topic), el("span", { class: kind }, text)));
    while (this.#log.childElementCount > MAX_LINES) {
      this.#log.lastElementChild?.remove();
    }
  }

  #showCode(): void {
    const [topic, data] = [this.#topic, this.#data.value.replace(/\s+/g, " ").trim()];
    this.#code.set((token) => sources(token, topic, data, this.#kind === "ORDERBOOK"));
  }
}

function sources(token: string, topic: string, data: string, isSnapshot: boolean): Sources {
  const type = isSnapshot ? ', "type": "snapshot"' : "";
  const json = `{"messages": [{"topic": "${topic}"${type}, "data": ${data}}]}`;
  return {
    javascript: `import { Client } from "@floorcast/client";

const client = new Client("${BASE}", { token: "${token}" });
const [position] = await client.market.publish({
  topic: "${topic}",${isSnapshot ? '\n  type: "snapshot",' : ""}
  data: ${data},
});
console.log(position.seq);`,
    python: `import asyncio
from floorcast import Client

async def main():
    async with Client("${BASE}", token="${token}") as client:
        print(await client.market.publish("${topic}", ${data}${isSnapshot ? ', type="snapshot"' : ""}))

asyncio.run(main())`,
    curl: `curl "${BASE}api/v1/publish" \\
  -H "Authorization: Bearer ${token}" -H "Content-Type: application/json" \\
  -d '${json.replace(/'/g, "'\\''")}'`,
  };
}
