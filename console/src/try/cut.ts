/** "Cut my line": what a connection misses is replayed, and nothing is lost. */
import { BASE } from "../kit/access.js";
import { choice, el, Text } from "../kit/elements.js";
import { decimal } from "../kit/format.js";
import type { Context } from "../place.js";
import { Code, type Sources } from "./code.js";
import { Deliveries } from "./deliveries.js";
import { Line } from "./line.js";
import { Strip } from "./strip.js";

const TOPICS = "TRADES:*";
/** After the replay, for what is under way in both connections. */
const SETTLE_MS = 400;
const DRAW_MS = 60;
const SECONDS = [3, 10, 30] as const;

export class CutExperiment {
  readonly element: HTMLElement;
  readonly #strip = new Strip();
  readonly #numbers = { missed: new Text(), replayed: new Text(), lost: new Text() };
  readonly #result: HTMLElement;
  readonly #note = new Text();
  readonly #button: HTMLButtonElement;
  readonly #code: Code;
  #seconds: number = SECONDS[1];
  #deliveries = new Deliveries();
  #line: Line | null = null;
  #stops: (() => void)[] = [];
  #timers: ReturnType<typeof setTimeout>[] = [];
  #state: "live" | "cut" | "returning" = "live";

  constructor(private readonly context: Context) {
    this.#button = el("button", { type: "button", class: "primary", click: () => this.cut() }, "Cut my line");
    const seconds = choice(
      "For how long",
      SECONDS.map((each) => [each, `${each} s`] as const),
      this.#seconds,
      (each) => (this.#seconds = each),
    );
    const { missed, replayed, lost } = this.#numbers;
    this.#result = el(
      "p",
      { class: "outcome", role: "status", "aria-label": "Result" },
      el("span", {}, el("b", {}, missed.node), " missed, "),
      el("span", {}, el("b", {}, replayed.node), " replayed, "),
      el("span", {}, el("b", { class: "lost" }, lost.node), " lost"),
    );
    this.#code = new Code(context, "resume after a cut");
    this.#code.set(sources);
    this.element = el(
      "section",
      { class: "panel experiment", "aria-label": "Cut my line" },
      el("header", {}, el("h2", {}, "Cut my line"), seconds.element, this.#button),
      el(
        "div",
        { class: "content" },
        el(
          "p",
          { class: "hint" },
          "A second connection of this page follows all trades. Cut it: the server keeps what it misses, and sends it when it is back, each trade once and in order.",
        ),
        this.#strip.element,
        this.#result,
        el("p", { class: "hint note" }, this.#note.node),
        this.#code.element,
      ),
    );
    this.#show();
  }

  start(): void {
    this.#deliveries = new Deliveries();
    this.#state = "live";
    const { client, access } = this.context;
    const line = new Line(BASE, access.token);
    this.#line = line;
    this.#stops = [
      client.market.subscribe(TOPICS, {
        message: (message) => this.#deliveries.sent(message, performance.now()),
      }),
      line.client.market.subscribe(TOPICS, {
        message: (message) => this.#deliveries.arrived(message, performance.now()),
        status: ({ subscription }) => subscription === "live" && this.#onLive(),
      }),
    ];
    const draw = setInterval(() => this.#strip.draw(this.#deliveries, performance.now()), DRAW_MS);
    this.#stops.push(() => clearInterval(draw), () => line.close());
    this.#show();
  }

  stop(): void {
    this.#timers.splice(0).forEach((each) => clearTimeout(each));
    this.#stops.splice(0).forEach((each) => each());
    this.#line = null;
  }

  cut(): void {
    if (this.#line === null || this.#state !== "live") {
      return;
    }
    this.#state = "cut";
    this.#deliveries.cut(performance.now());
    this.#line.cut();
    this.#count(this.#seconds);
    this.#show();
  }

  #count(seconds: number): void {
    if (seconds > 0) {
      this.#note.set(`The line is cut: it is back in ${seconds} s`);
      this.#timers.push(setTimeout(() => this.#count(seconds - 1), 1_000));
    } else {
      this.#state = "returning";
      this.#note.set("The line comes back");
      this.#line?.restore();
    }
    this.#show();
  }

  #onLive(): void {
    if (this.#state === "returning") {
      this.#state = "live";
      this.#deliveries.comeBack(performance.now());
      this.#timers.push(setTimeout(() => this.#settle(), SETTLE_MS));
    }
  }

  #settle(): void {
    this.#note.set("Each trade came once, in order.");
    this.#show();
  }

  #show(): void {
    const { missed, replayed, lost } = this.#deliveries.outcome;
    const isCounted = this.#deliveries.cutAt !== null;
    const isDone = isCounted && this.#state === "live";
    this.#numbers.missed.set(decimal(`${missed}`));
    this.#numbers.replayed.set(decimal(`${replayed}`));
    this.#numbers.lost.set(isDone ? `${lost}` : "0");
    this.#result.className = `outcome ${isDone ? (lost === 0 ? "good" : "bad") : ""}`;
    this.#result.toggleAttribute("hidden", !isCounted);
    this.#button.disabled = this.#state !== "live";
    if (!isCounted) {
      this.#note.set("");
    }
  }
}

function sources(token: string): Sources {
  return {
    javascript: `import { Client } from "@floorcast/client";

const client = new Client("${BASE}", { token: "${token}" });
client.market.subscribe("${TOPICS}", {
  message: ({ symbol, seq, data }) => console.log(symbol, seq, data.trades),
  gap: (gap) => console.warn("lost", gap),
});`,
    python: `import asyncio
from floorcast import Client

async def main():
    async with Client("${BASE}", token="${token}") as client:
        async for item in client.market.stream("${TOPICS}"):
            print(item)  # a Gap says what is lost

asyncio.run(main())`,
    curl: `curl "${BASE}api/v1/topics/TRADES:BTCUSDT/history?limit=10" \\
  -H "Authorization: Bearer ${token}"`,
  };
}
