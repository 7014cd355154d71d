/** The place *Watch*: the watch list, and the chart, book and trades of the chosen symbol. */
import { drawSoon } from "../kit/draw.js";
import { choice, el } from "../kit/elements.js";
import { decimal, elapsed } from "../kit/format.js";
import { preference } from "../kit/preferences.js";
import type { Context, Place, PlaceShortcut, PlaceView } from "../place.js";
import { Alerts } from "./alerts.js";
import { notify, openAlerts } from "./alert-dialog.js";
import { ChartPanel } from "./chart.js";
import { Headline } from "./headline.js";
import { Ladder } from "./ladder.js";
import { WatchList } from "./list.js";
import type { Quote } from "./quote.js";
import { PACES, type Pace, Quotes } from "./quotes.js";
import { TapePanel } from "./tape.js";

const TICK_MS = 1_000;
const FLASH_TICK_MS = 100;
const PACE_NAMES: Record<Pace, string> = { 0: "all", 100: "100 ms", 250: "250 ms", 1000: "1 s" };

class WatchView implements PlaceView {
  static readonly shortcuts: readonly PlaceShortcut<WatchView>[] = [
    { keys: ["/"], text: "Search", run: (view) => view.#list.search.select() },
    { keys: ["ArrowUp", "k"], text: "The symbol above", run: (view) => view.#list.step(-1) },
    { keys: ["ArrowDown", "j"], text: "The symbol below", run: (view) => view.#list.step(1) },
    { keys: ["["], text: "Shorter candles", run: (view) => view.#chart.stepInterval(-1) },
    { keys: ["]"], text: "Longer candles", run: (view) => view.#chart.stepInterval(1) },
    { keys: ["g"], text: "Larger groups in the book", run: (view) => view.#ladder.stepGrouping(1) },
    { keys: ["G"], text: "Smaller groups in the book", run: (view) => view.#ladder.stepGrouping(-1) },
    { keys: ["d"], text: "The next depth of the book", run: (view) => view.#ladder.nextDepth() },
    { keys: ["p"], text: "The next pace", run: (view) => view.#nextPace() },
    { keys: ["a"], text: "Alerts of the symbol", run: (view) => view.#openAlerts() },
  ];
  readonly #quotes: Quotes;
  readonly #list: WatchList;
  readonly #headline: Headline;
  readonly #chart: ChartPanel;
  readonly #ladder = new Ladder(() => this.#followBook());
  readonly #tape = new TapePanel();
  readonly #alerts = new Alerts();
  readonly #preferred = preference("symbol", "");
  readonly #pace;
  #quote: Quote | null = null;
  #releases: (() => void)[] = [];
  #isShown = true;

  constructor(
    private readonly context: Context,
    section: HTMLElement,
  ) {
    const { client } = context;
    this.#quotes = new Quotes(client, {
      listed: () => this.#onListed(),
      changed: (quote, before) => this.#onChanged(quote, before),
      becameStale: (quote) => this.#onStale(quote),
    });
    this.#list = new WatchList(client, this.#quotes, (symbol) => this.#choose(symbol));
    this.#headline = new Headline(client, () => this.#openAlerts());
    this.#chart = new ChartPanel(client);
    const paces = PACES.map((pace) => [pace, PACE_NAMES[pace]] as const);
    this.#pace = choice("Pace of prices and book", paces, this.#quotes.pace, (pace) => {
      this.#quotes.pace = pace;
      this.#followBook();
    });
    this.#list.addTool(this.#pace.element);
    section.append(
      this.#list.element,
      el("div", { class: "middle" }, this.#headline.element, this.#chart.element),
      el("div", { class: "side" }, this.#ladder.element, this.#tape.element),
    );
    setInterval(() => this.#tick(), TICK_MS);
    setInterval(() => this.#list.endFlashes(), FLASH_TICK_MS);
  }

  show(): void {
    if (!this.#isShown) {
      this.#isShown = true;
      this.#quotes.isActive = true;
      this.#follow();
    }
  }

  hide(): void {
    this.#isShown = false;
    this.#quotes.isActive = false;
    this.#release();
  }

  #nextPace(): void {
    const next = (PACES.indexOf(this.#quotes.pace) + 1) % PACES.length;
    this.#pace.choose(PACES[next] ?? 0);
  }

  #onListed(): void {
    this.#list.list();
    const chosen = this.#quote;
    if (chosen === null || this.#quotes.get(chosen.symbol) !== chosen) {
      const first = this.#quotes.get(this.#preferred.get()) ?? this.#quotes.all[0];
      if (first !== undefined) {
        this.#choose(first.symbol);
      }
    }
    this.#keepWanted();
  }

  #choose(symbol: string): void {
    const quote = this.#quotes.get(symbol);
    if (quote === undefined || quote === this.#quote) {
      return;
    }
    this.#quote = quote;
    this.#preferred.set(symbol);
    this.#list.mark(symbol);
    this.#headline.show(quote);
    this.#ladder.show(quote);
    this.#keepWanted();
    this.#follow();
  }

  readonly #drawHeadline = (): void => this.#headline.draw();

  #follow(): void {
    this.#release();
    const quote = this.#quote;
    if (quote === null || !this.#isShown) {
      return;
    }
    const trades = this.context.client.market.trades(quote.symbol);
    const draw = () => quote === this.#quote && this.#tape.draw(trades.get());
    this.#releases = [trades.subscribe(() => drawSoon(draw))];
    draw();
    this.#followBook();
    this.#chart.show(quote.symbol, quote.instrument.tick_size);
    this.#chart.drawLevels(this.#alerts.of(quote.symbol));
  }

  #followBook(): void {
    const quote = this.#quote;
    if (quote !== null && this.#releases.length > 0) {
      this.#releases.splice(1).forEach((each) => each());
      const { market } = this.context.client;
      const book = market.book(quote.symbol, { intervalMs: this.#quotes.pace, ...this.#ladder.view });
      const draw = () => quote === this.#quote && this.#ladder.draw(book.get());
      this.#releases.push(book.subscribe(() => drawSoon(draw)));
      draw();
    }
  }

  #release(): void {
    this.#releases.splice(0).forEach((each) => each());
    this.#chart.pause();
  }

  /** What is in the title or has an alert goes on while nobody looks. */
  #keepWanted(): void {
    for (const quote of this.#quotes.all) {
      const isWanted = this.#alerts.reportsStale || this.#alerts.has(quote.symbol);
      this.#quotes.keep(quote, isWanted || quote === this.#quote);
    }
  }

  #onChanged(quote: Quote, before: number): void {
    this.#list.changed(quote);
    if (quote === this.#quote) {
      drawSoon(this.#drawHeadline);
    }
    for (const level of this.#alerts.crossed(quote.symbol, before, quote.value)) {
      this.#report(`${quote.symbol} has reached ${decimal(level)}`);
      this.#onAlertsChanged();
    }
  }

  #onStale(quote: Quote): void {
    if (this.#alerts.reportsStale) {
      const { ts } = quote;
      const since = ts === null ? "" : `: the last update is ${elapsed(this.context.client.age(ts))} old`;
      this.#report(`${quote.symbol} is stale${since}`);
    }
  }

  #report(text: string): void {
    this.context.toasts.show(text, "warning");
    notify(text);
  }

  #openAlerts(): void {
    const quote = this.#quote;
    if (quote !== null) {
      openAlerts(this.#alerts, quote.symbol, quote.last, () => this.#onAlertsChanged());
    }
  }

  #onAlertsChanged(): void {
    this.#keepWanted();
    if (this.#quote !== null) {
      this.#chart.drawLevels(this.#alerts.of(this.#quote.symbol));
    }
  }

  #tick(): void {
    this.#quotes.tick();
    if (this.#isShown) {
      this.#list.tick();
      this.#headline.draw();
      this.#ladder.offerSteps();
    }
    this.#drawTitle();
  }

  #drawTitle(): void {
    const quote = this.#quote;
    if (quote === null || quote.last === null) {
      return;
    }
    const mark = quote.freshness === "live" ? "" : `(${quote.freshness}) `;
    document.title = `${mark}${decimal(quote.last)} ${quote.symbol} · Floorcast`;
  }
}

export const watch: Place<WatchView> = {
  id: "watch",
  title: "Watch",
  shortcuts: WatchView.shortcuts,
  open: (context, section) => new WatchView(context, section),
};
