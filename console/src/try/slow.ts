/** A slow reader: what the server merges for it, and how old it gets. */
import type { AnyMessage } from "@floorcast/client";
import { BASE } from "../kit/access.js";
import { choice, el, Text } from "../kit/elements.js";
import { age, decimal } from "../kit/format.js";
import type { Context } from "../place.js";
import { Code, type Sources } from "./code.js";
import { Line } from "./line.js";

const SHOWN_MS = 10_000;
const TICK_MS = 500;
const PACES = [
  [0, "reads all"],
  [100, "100 ms"],
  [250, "250 ms"],
  [1000, "1 s"],
] as const;
type Pace = (typeof PACES)[number][0];

interface Read {
  readonly at: number;
  readonly published: number;
  readonly ageMs: number;
}

/** One stream: what was published, read and merged in the last seconds. */
class Reading {
  readonly row: HTMLTableRowElement;
  readonly #published = new Text();
  readonly #read = new Text();
  readonly #merged = new Text();
  readonly #age = new Text();
  readonly #bar = el("i");
  #reads: Read[] = [];

  constructor(title: string) {
    this.row = el(
      "tr",
      {},
      el("th", { scope: "row" }, title),
      el("td", {}, this.#published.node),
      el("td", {}, this.#read.node),
      el("td", {}, this.#merged.node),
      el("td", {}, this.#age.node),
      el("td", { class: "share", "aria-hidden": "true" }, this.#bar),
    );
  }

  add(message: AnyMessage): void {
    // The first one stands for all before it.
    if (message.type === "update") {
      const { seq, prev, age_ms: ageMs = 0 } = message;
      this.#reads.push({ at: performance.now(), published: seq - prev, ageMs });
    }
  }

  clear(): void {
    this.#reads = [];
    this.draw();
  }

  draw(): void {
    const since = performance.now() - SHOWN_MS;
    this.#reads = this.#reads.filter(({ at }) => at > since);
    const read = this.#reads.length;
    const published = this.#reads.reduce((sum, each) => sum + each.published, 0);
    const oldest = Math.max(0, ...this.#reads.map((each) => each.ageMs));
    this.#published.set(decimal(`${published}`));
    this.#read.set(decimal(`${read}`));
    this.#merged.set(decimal(`${published - read}`));
    this.#age.set(oldest === 0 ? "–" : age(oldest));
    this.#bar.style.width = published === 0 ? "0" : `${(read / published) * 100}%`;
  }
}

export class SlowExperiment {
  readonly element: HTMLElement;
  readonly #prices = new Reading("Prices");
  readonly #trades = new Reading("Trades");
  readonly #code: Code;
  readonly #paces;
  #pace: Pace = 1000;
  #line: Line | null = null;
  #release: (() => void)[] = [];
  #timer: ReturnType<typeof setInterval> | null = null;

  constructor(private readonly context: Context) {
    this.#paces = choice("How fast it reads", PACES, this.#pace, (each) => {
      this.#pace = each;
      this.#code.set((token) => sources(token, each));
      this.#prices.clear();
      this.#trades.clear();
      this.#subscribe();
    });
    this.#code = new Code(context, "a slow reader");
    this.#code.set((token) => sources(token, this.#pace));
    const headers = ["", "Published", "Read", "Merged", "Oldest", ""];
    this.element = el(
      "section",
      { class: "panel experiment", "aria-label": "Slow reader" },
      el("header", {}, el("h2", {}, "Slow reader"), this.#paces.element),
      el(
        "div",
        { class: "content" },
        el(
          "p",
          { class: "hint" },
          "A third connection takes one update of a topic in so much time. The server merges the rest: the newest price always arrives, with the number of the updates in it and the age of the oldest. Trades are never merged.",
        ),
        el(
          "table",
          { class: "reading" },
          el("caption", { class: "unseen" }, "The last ten seconds"),
          el("thead", {}, el("tr", {}, ...headers.map((text) => (text === "" ? el("td") : el("th", { scope: "col" }, text))))),
          el("tbody", {}, this.#prices.row, this.#trades.row),
        ),
        el("p", { class: "hint note" }, "All symbols, in the last ten seconds."),
        this.#code.element,
      ),
    );
  }

  start(): void {
    this.#line = new Line(BASE, this.context.access.token);
    this.#subscribe();
    this.#timer = setInterval(() => this.#draw(), TICK_MS);
    this.#draw();
  }

  stop(): void {
    clearInterval(this.#timer ?? undefined);
    this.#release.splice(0).forEach((each) => each());
    this.#line?.close();
    this.#line = null;
  }

  nextPace(): void {
    const index = PACES.findIndex(([pace]) => pace === this.#pace);
    this.#paces.choose(PACES[(index + 1) % PACES.length]?.[0] ?? 0);
  }

  #subscribe(): void {
    const market = this.#line?.client.market;
    this.#release.splice(0).forEach((each) => each());
    if (market !== undefined) {
      this.#release = [
        market.subscribe("PRICE:*", { intervalMs: this.#pace, message: (each) => this.#prices.add(each) }),
        market.subscribe("TRADES:*", { message: (each) => this.#trades.add(each) }),
      ];
    }
  }

  #draw(): void {
    this.#prices.draw();
    this.#trades.draw();
  }
}

function sources(token: string, pace: Pace): Sources {
  return {
    javascript: `import { Client } from "@floorcast/client";

const client = new Client("${BASE}", { token: "${token}" });
client.market.subscribe("PRICE:*", {
  intervalMs: ${pace},
  message: ({ symbol, data, merged = 1, age_ms = 0 }) =>
    console.log(symbol, data.last, \`\${merged} updates, \${age_ms} ms\`),
});`,
    python: `import asyncio
from floorcast import Client

async def main():
    async with Client("${BASE}", token="${token}") as client:
        async for price in client.market.stream("PRICE:*", interval_ms=${pace}):
            print(price.symbol, price.data.last, price.merged, price.age_ms)

asyncio.run(main())`,
    curl: `curl "${BASE}api/v1/topics/PRICE:BTCUSDT" \\
  -H "Authorization: Bearer ${token}"`,
  };
}
