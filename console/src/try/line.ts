/** A connection of its own, which can be cut. */
import { Client, openManager, type Token } from "@floorcast/client";

/** What the stock client's manager has besides. */
interface CuttableManager {
  readonly engine: { close(): void };
  reconnection(isOn: boolean): unknown;
  open(): unknown;
}

export class Line {
  readonly client: Client;
  #manager: CuttableManager | null = null;

  constructor(url: string, token: Token) {
    this.client = new Client(url, {
      token,
      transports: ["websocket"],
      open: (origin, settings) => {
        const manager = openManager(origin, settings);
        this.#manager = manager as unknown as CuttableManager;
        return manager;
      },
    });
  }

  /** Cut the connection, and do not come back before `restore`. */
  cut(): void {
    this.#manager?.reconnection(false);
    this.#manager?.engine.close();
  }

  restore(): void {
    this.#manager?.reconnection(true);
    this.#manager?.open();
  }

  close(): void {
    this.client.close();
  }
}
