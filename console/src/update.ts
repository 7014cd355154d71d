/** Offers to load the page anew, once the server runs another version than the one it came from. */
import type { Client } from "@floorcast/client";
import type { Access } from "./kit/access.js";
import { el, Text } from "./kit/elements.js";

export class UpdateNotice {
  readonly element: HTMLElement;
  readonly #text = new Text();
  #wasOnline = false;
  /** The version that was offered last: each is offered once. */
  #offered = "";

  constructor(
    private readonly client: Client,
    private readonly access: Access,
  ) {
    this.element = el(
      "div",
      { class: "update", role: "status", hidden: true },
      el("span", {}, this.#text.node),
      el("button", { type: "button", class: "primary", click: () => location.reload() }, "Reload"),
      el("button", { type: "button", click: () => this.element.toggleAttribute("hidden", true) }, "Later"),
    );
    client.connection.subscribe(() => this.#onConnection());
  }

  #onConnection(): void {
    const isOnline = this.client.connection.get().state === "online";
    if (isOnline && !this.#wasOnline) {
      void this.#compare();
    }
    this.#wasOnline = isOnline;
  }

  async #compare(): Promise<void> {
    const version = await this.access.serverVersion().catch(() => "");
    if (version !== "" && version !== this.access.pageVersion && version !== this.#offered) {
      this.#offered = version;
      this.#text.set(`The server now runs version ${version}, this page is of ${this.access.pageVersion}.`);
      this.element.toggleAttribute("hidden", false);
    }
  }
}
