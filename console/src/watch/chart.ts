/** The chart: candles and volume of a symbol, older ones as one scrolls back. */
import { type Bar, type CandleInterval, type Client, mergeBars } from "@floorcast/client";
import {
  CandlestickSeries,
  createChart,
  HistogramSeries,
  type IChartApi,
  type IPriceLine,
  type ISeriesApi,
  TickMarkType,
  type UTCTimestamp,
} from "lightweight-charts";
import { choice, el, Text } from "../kit/elements.js";
import { clock, decimal, places } from "../kit/format.js";
import { preference } from "../kit/preferences.js";
import { colour, onTheme } from "../kit/theme.js";
import { isDimmed } from "./row.js";

const INTERVALS: readonly CandleInterval[] = ["1s", "5s", "1m", "5m", "15m", "1h", "4h", "1d"];
const PAGE_BARS = 500;
/** A young server has few candles of a minute: begin with shorter ones. */
const FEW_BARS = 12;
const NEAR_START_BARS = 20;
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const MONTH = new Intl.DateTimeFormat(undefined, { month: "short" });
const MINUTE = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export class ChartPanel {
  readonly element: HTMLElement;
  readonly #legend = new Text();
  readonly #status = new Text();
  readonly #chart: IChartApi;
  readonly #candles: ISeriesApi<"Candlestick">;
  readonly #volume: ISeriesApi<"Histogram">;
  readonly #preferred = preference<CandleInterval | null>("interval", null);
  readonly #intervals;
  #interval: CandleInterval;
  #symbol = "";
  #precision = 2;
  #older: readonly Bar[] = [];
  #shown: readonly Bar[] = [];
  #isFetching = false;
  #isComplete = false;
  #release: (() => void) | null = null;
  #lines: IPriceLine[] = [];
  #wasOffline = false;

  constructor(private readonly client: Client) {
    this.#interval = this.#preferred.get() ?? "1m";
    const options = INTERVALS.map((each) => [each, each] as const);
    this.#intervals = choice("Interval", options, this.#interval, (interval) => {
      this.#preferred.set(interval);
      this.#use(interval);
    });
    const canvas = el("div", { class: "canvas", "aria-hidden": "true" });
    this.element = el(
      "section",
      { class: "panel chart", "aria-label": "Chart" },
      el("header", {}, this.#intervals.element, el("span", { class: "legend" }, this.#legend.node)),
      canvas,
      el("p", { class: "note", role: "status" }, this.#status.node),
    );
    this.#chart = createChart(canvas, {
      autoSize: true,
      // The logo brings a style element, which the policy of the page refuses: the help names it.
      layout: { attributionLogo: false, fontSize: 11, background: { color: "transparent" } },
      localization: {
        timeFormatter: (time: UTCTimestamp) => `${DAY.format(time * 1_000)} ${clock(time * 1_000)}`,
        priceFormatter: (price: number) => decimal(price.toFixed(this.#precision)),
      },
      timeScale: { timeVisible: true, rightOffset: 4, minBarSpacing: 2, tickMarkFormatter: tick },
      rightPriceScale: { scaleMargins: { top: 0.08, bottom: 0.22 } },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#volume = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "",
      lastValueVisible: false,
      priceLineVisible: false,
      priceFormat: { type: "volume" },
    });
    this.#volume.priceScale().applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range !== null && range.from < NEAR_START_BARS) {
        void this.#fetchOlder();
      }
    });
    this.#chart.subscribeCrosshairMove(({ time }) => this.#describe(time as UTCTimestamp | undefined));
    onTheme(() => this.#paint());
    this.#paint();
  }

  /** Show a symbol; `tickSize` is the step of its prices. */
  show(symbol: string, tickSize: string | undefined): void {
    this.#symbol = symbol;
    if (tickSize !== undefined) {
      this.#precision = places(tickSize);
      const priceFormat = { type: "price" as const, precision: this.#precision, minMove: Number(tickSize) };
      this.#candles.applyOptions({ priceFormat });
    }
    this.#restart();
  }

  /** End the subscription; `show` begins again. */
  pause(): void {
    this.#release?.();
    this.#release = null;
  }

  /** Choose the next longer or shorter interval. */
  stepInterval(by: 1 | -1): void {
    const next = INTERVALS[INTERVALS.indexOf(this.#interval) + by];
    if (next !== undefined) {
      this.#intervals.choose(next);
    }
  }

  /** Draw a line at each of these prices. */
  drawLevels(levels: readonly string[]): void {
    this.#lines.forEach((line) => this.#candles.removePriceLine(line));
    this.#lines = levels.map((level) =>
      this.#candles.createPriceLine({
        price: Number(level),
        color: colour("--warn"),
        lineWidth: 1,
        lineStyle: 2,
        title: "alert",
      }),
    );
  }

  #use(interval: CandleInterval): void {
    if (interval !== this.#interval) {
      this.#interval = interval;
      this.#restart();
    }
  }

  #restart(): void {
    this.pause();
    this.#older = [];
    this.#shown = [];
    this.#isComplete = false;
    this.#isFetching = false;
    this.#candles.setData([]);
    this.#volume.setData([]);
    this.#chart.timeScale().applyOptions({ secondsVisible: this.#interval.endsWith("s") });
    const store = this.client.market.candles(this.#symbol, this.#interval, { limit: PAGE_BARS });
    const draw = () => {
      const { bars, status, error } = store.get();
      this.element.classList.toggle("dimmed", isDimmed(status));
      this.#status.set(status === "empty" ? "No trades so far" : (error?.message ?? ""));
      if (this.#wasOffline && status === "live") {
        // What happened meanwhile is between the older bars and those of the subscription.
        this.#older = [];
        this.#isComplete = false;
        void this.#fetchOlder();
      }
      this.#wasOffline = status === "offline";
      this.#draw(bars);
    };
    this.#release = store.subscribe(draw);
    void this.#fetchOlder();
  }

  async #fetchOlder(): Promise<void> {
    if (this.#isFetching || this.#isComplete) {
      return;
    }
    this.#isFetching = true;
    const [symbol, interval] = [this.#symbol, this.#interval];
    const first = this.#older[0]?.t;
    const before = first === undefined ? {} : { before: first };
    const bars = await this.client.market
      .fetchCandles(symbol, interval, { ...before, limit: PAGE_BARS })
      .catch(() => null);
    if (symbol !== this.#symbol || interval !== this.#interval) {
      return;
    }
    this.#isFetching = false;
    if (bars === null) {
      return;
    }
    this.#isComplete = bars.length < PAGE_BARS;
    this.#older = mergeBars(bars, this.#older);
    if (this.#preferred.get() === null && interval === "1m" && this.#older.length < FEW_BARS) {
      this.#interval = "1s";
      this.#intervals.mark("1s");
      this.#restart();
      return;
    }
    this.#draw(this.#shown);
  }

  #draw(live: readonly Bar[]): void {
    const bars = mergeBars(this.#older, live);
    const [first, last] = [this.#shown[0], this.#shown.at(-1)];
    if (first === undefined || last === undefined || bars[0]?.t !== first.t) {
      const range = this.#chart.timeScale().getVisibleLogicalRange();
      const added = bars.length - this.#shown.length;
      this.#candles.setData(bars.map(candle));
      this.#volume.setData(bars.map(volume));
      if (first === undefined) {
        this.#chart.timeScale().resetTimeScale();
      } else if (range !== null) {
        // The bars that are shown stay where they are.
        const { from, to } = range;
        this.#chart.timeScale().setVisibleLogicalRange({ from: from + added, to: to + added });
      }
    } else {
      for (const bar of bars) {
        if (bar.t >= last.t) {
          this.#candles.update(candle(bar));
          this.#volume.update(volume(bar));
        }
      }
    }
    this.#shown = bars;
    this.#describe(undefined);
  }

  /** The bar under the pointer, or the newest one. */
  #describe(time: UTCTimestamp | undefined): void {
    const bar =
      time === undefined
        ? this.#shown.at(-1)
        : this.#shown.find((each) => each.t === time * 1_000);
    if (bar === undefined) {
      this.#legend.set("");
      return;
    }
    const { o, h, l, c, v } = bar;
    this.#legend.set(`O ${decimal(o)}  H ${decimal(h)}  L ${decimal(l)}  C ${decimal(c)}  V ${v}`);
  }

  #paint(): void {
    const grid = { color: colour("--soft-line") };
    const border = { borderColor: colour("--line") };
    this.#chart.applyOptions({
      layout: { textColor: colour("--dim"), fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { vertLines: grid, horzLines: grid },
      rightPriceScale: border,
      timeScale: border,
    });
    const [up, down] = [colour("--up"), colour("--down")];
    this.#candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.#volume.setData(this.#shown.map(volume));
  }
}

function seconds(bar: Bar): UTCTimestamp {
  return (bar.t / 1_000) as UTCTimestamp;
}

function candle(bar: Bar) {
  const { o, h, l, c } = bar;
  return { time: seconds(bar), open: Number(o), high: Number(h), low: Number(l), close: Number(c) };
}

function volume(bar: Bar) {
  const isUp = Number(bar.c) >= Number(bar.o);
  return { time: seconds(bar), value: Number(bar.v), color: colour(isUp ? "--up-wash" : "--down-wash") };
}

/** Times of the user's zone: the chart itself knows UTC. */
function tick(time: UTCTimestamp, type: TickMarkType): string {
  const ts = time * 1_000;
  switch (type) {
    case TickMarkType.Year:
      return String(new Date(ts).getFullYear());
    case TickMarkType.Month:
      return MONTH.format(ts);
    case TickMarkType.DayOfMonth:
      return DAY.format(ts);
    case TickMarkType.Time:
      return MINUTE.format(ts);
    default:
      return clock(ts);
  }
}
