/** What this package uses of Socket.IO; the mock server of `testing` implements it too. */
import { Manager } from "socket.io-client";

export interface SocketLike {
  readonly connected: boolean;
  /** True while the manager reconnects this socket by itself. */
  readonly active: boolean;
  connect(): unknown;
  disconnect(): unknown;
  on(event: string, handler: (...values: any[]) => void): unknown;
  emit(event: string, ...values: unknown[]): unknown;
  timeout(milliseconds: number): { emit(event: string, ...values: unknown[]): unknown };
}

export interface ManagerLike {
  socket(
    namespace: string,
    options: { auth: (send: (payload: object) => void) => void },
  ): SocketLike;
  reconnectionDelay(milliseconds: number): unknown;
  on(event: "reconnect_attempt", handler: (attempt: number) => void): unknown;
}

export interface ManagerSettings {
  path: string;
  transports: readonly string[];
  reconnectionDelay: number;
  reconnectionDelayMax: number;
}

export type OpenManager = (origin: string, settings: ManagerSettings) => ManagerLike;

/** A manager of the stock client; its sockets connect when they are first used. */
export const openManager: OpenManager = (origin, settings) =>
  new Manager(origin, {
    ...settings,
    transports: [...settings.transports],
    autoConnect: false,
    randomizationFactor: 0.9,
  });

/** The origin and the Socket.IO path of a server, which may be mounted below a path. */
export function parseAddress(url: string): { origin: string; path: string } {
  const page = typeof location === "undefined" ? undefined : location.href;
  const { origin, pathname } = new URL(url, page);
  return { origin, path: `${pathname.replace(/\/+$/, "")}/socket.io/` };
}
