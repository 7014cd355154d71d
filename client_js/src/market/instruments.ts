/** The symbols of the server, with their reference data and trading state. */
import type { Frames } from "../connection/frames.js";
import type { Namespace } from "../connection/namespace.js";
import { backoff, passes } from "../connection/retry.js";
import type { Timers } from "../connection/timers.js";
import type { Instrument, InstrumentsReply } from "../contract.js";
import { FloorcastError } from "../errors.js";
import { Store } from "../store.js";
import { matcher } from "./match.js";

/** Behind every symbol: the reply to this lists none. */
const AFTER_ALL = "~";

export interface InstrumentsOptions {
  /** A pattern such as `BTC*`; all symbols by default. */
  match?: string;
  symbols?: readonly string[];
}

export interface Instruments {
  readonly status: "loading" | "live" | "offline" | "error";
  readonly error: FloorcastError | null;
  /** By symbol. */
  readonly instruments: readonly Instrument[];
}

export class InstrumentsStore extends Store<Instruments> {
  readonly #bySymbol = new Map<string, Instrument>();
  /** What changed since the list was asked for: its first pages may be older. */
  readonly #changes = new Map<string, Instrument>();
  #status: Instruments["status"] = "loading";
  #error: FloorcastError | null = null;
  #stops: (() => void)[] = [];
  #attempt = 0;
  /** Counts the lists that were asked for: of an older one no page counts. */
  #list = 0;
  readonly #matches: (symbol: string) => boolean;

  constructor(
    private readonly options: InstrumentsOptions,
    private readonly namespace: Namespace<"/market">,
    frames: Frames,
    private readonly timers: Timers,
  ) {
    super(frames);
    this.#matches = matcher(options.match ?? "*");
  }

  protected build(): Instruments {
    const instruments = [...this.#bySymbol.values()];
    instruments.sort((a, b) => (a.symbol < b.symbol ? -1 : 1));
    return { status: this.#status, error: this.#error, instruments };
  }

  protected override start(): void {
    const { namespace } = this;
    this.#stops = [
      namespace.on("instrument", (instrument: Instrument) => this.#onChange(instrument)),
      namespace.onReady(() => this.#fetchIfWatched()),
      namespace.onDown(() => this.#onDown()),
    ];
    namespace.start();
    this.#fetchIfWatched();
  }

  protected override stop(): void {
    this.#list += 1;
    this.#stops.forEach((each) => each());
  }

  #fetchIfWatched(): void {
    // After this turn, when the first listener counts, and StrictMode has mounted twice.
    const list = (this.#list += 1);
    this.timers.after(0, () => {
      if (list === this.#list && this.isWatched && this.namespace.isOnline) {
        this.#changes.clear();
        this.#become("loading", null);
        // A connection follows one pattern: all symbols, for whatever else is listed here.
        this.namespace.send("instruments", { follow: true, after: AFTER_ALL }, () => {});
        this.#fetch(list, "", []);
      }
    });
  }

  #fetch(list: number, after: string, before: readonly Instrument[]): void {
    const { match, symbols } = this.options;
    const request = {
      ...(after === "" ? {} : { after }),
      ...(match === undefined ? {} : { match }),
      ...(symbols === undefined ? {} : { symbols: [...symbols] }),
    };
    this.namespace.send("instruments", request, (reply) => {
      if (list === this.#list && this.namespace.isOnline) {
        this.#onReply(list, before, reply);
      }
    });
  }

  #onReply(list: number, before: readonly Instrument[], reply: InstrumentsReply | null): void {
    if (reply?.ok !== true) {
      this.#onRefused(reply === null ? null : FloorcastError.of(reply.error));
      return;
    }
    const instruments = [...before, ...reply.instruments];
    const last = reply.instruments.at(-1);
    if (reply.has_more && last !== undefined) {
      this.#fetch(list, last.symbol, instruments);
      return;
    }
    this.#attempt = 0;
    this.#bySymbol.clear();
    for (const each of [...instruments, ...this.#changes.values()]) {
      this.#bySymbol.set(each.symbol, each);
    }
    this.#become("live", null);
  }

  #onRefused(error: FloorcastError | null): void {
    if (error === null || passes(error)) {
      this.timers.after(error?.retryAfterMs ?? backoff(this.#attempt), () =>
        this.#fetchIfWatched(),
      );
      this.#attempt += 1;
    } else {
      this.#become("error", error);
    }
  }

  #onChange(instrument: Instrument): void {
    if (this.#isWanted(instrument.symbol)) {
      if (this.#status !== "live") {
        this.#changes.set(instrument.symbol, instrument);
      }
      this.#bySymbol.set(instrument.symbol, instrument);
      this.changed();
    }
  }

  #isWanted(symbol: string): boolean {
    const { symbols } = this.options;
    return (symbols === undefined || symbols.includes(symbol)) && this.#matches(symbol);
  }

  #onDown(): void {
    this.#list += 1;
    if (this.#status === "live") {
      this.#become("offline", null);
    }
  }

  #become(status: Instruments["status"], error: FloorcastError | null): void {
    this.#status = status;
    this.#error = error;
    this.changed();
  }
}
