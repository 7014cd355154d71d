/** Hooks: each reads one value, and renders again in the frame after it changed. */
import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useContext,
  useSyncExternalStore,
} from "react";
import type { Client } from "./client.js";
import type { ConnectionInfo } from "./connection/connection.js";
import type { CandleInterval, Candles } from "./market/candles.js";
import type { Instruments, InstrumentsOptions } from "./market/instruments.js";
import type { BookOptions, CandleOptions, PriceOptions, TradesOptions } from "./market/market.js";
import type { Prices } from "./market/prices.js";
import type { BookView, Price, Tape } from "./market/stores.js";
import type { Session, SessionOptions, SessionView } from "./session/session.js";
import type { Readable } from "./store.js";

const ClientContext = createContext<Client | null>(null);

export interface FloorcastProviderProps {
  client: Client;
  children?: ReactNode;
}

/** Gives a client to the hooks below it. */
export function FloorcastProvider({ client, children }: FloorcastProviderProps): ReactElement {
  return createElement(ClientContext.Provider, { value: client }, children);
}

/** The client of the nearest provider. */
export function useClient(): Client {
  const client = useContext(ClientContext);
  if (client === null) {
    throw new Error("put a FloorcastProvider around components that use Floorcast");
  }
  return client;
}

function useValue<T>(store: Readable<T>): T {
  return useSyncExternalStore(store.subscribe, store.get, store.get);
}

/** The state of the connection. */
export function useConnection(): ConnectionInfo {
  return useValue(useClient().connection);
}

/** The price of a symbol. */
export function usePrice(symbol: string, options?: PriceOptions): Price {
  return useValue(useClient().market.price(symbol, options));
}

/** The prices of all symbols that match, such as `BTC*`; all symbols by default. */
export function usePrices(match?: string, options?: PriceOptions): Prices {
  return useValue(useClient().market.prices(match, options));
}

/** The order book of a symbol. */
export function useBook(symbol: string, options?: BookOptions): BookView {
  return useValue(useClient().market.book(symbol, options));
}

/** The newest trades of a symbol. */
export function useTrades(symbol: string, options?: TradesOptions): Tape {
  return useValue(useClient().market.trades(symbol, options));
}

/** The candles of a symbol. */
export function useCandles(
  symbol: string,
  interval: CandleInterval,
  options?: CandleOptions,
): Candles {
  return useValue(useClient().market.candles(symbol, interval, options));
}

/** The symbols of the server, as they change. */
export function useInstruments(options?: InstrumentsOptions): Instruments {
  return useValue(useClient().market.instruments(options));
}

/** A session, joined while the component is mounted; with `session` to send to it. */
export function useSession(
  id: string,
  options?: SessionOptions,
): SessionView & { session: Session } {
  const session = useClient().session(id, options);
  return { ...useValue(session), session };
}
