/** The bar at the top: places, the state of the connection, the theme. */
import type { Client, ConnectionInfo } from "@floorcast/client";
import { el, Text } from "./kit/elements.js";
import { elapsed } from "./kit/format.js";
import { toggleTheme } from "./kit/theme.js";
import type { Place } from "./place.js";

const STATES: Record<ConnectionInfo["state"], string> = {
  idle: "Connecting",
  connecting: "Connecting",
  online: "Online",
  offline: "Offline",
  refused: "Refused",
  closed: "Closed",
};

export class Bar {
  readonly element: HTMLElement;
  readonly #links: readonly HTMLAnchorElement[];
  readonly #state = new Text();
  readonly #detail = new Text();
  readonly #pill: HTMLElement;

  constructor(
    places: readonly Place[],
    private readonly client: Client,
    help: () => void,
  ) {
    this.#links = places.map(({ id, title }) => el("a", { href: `#${id}` }, title));
    this.#pill = el(
      "span",
      { class: "connection" },
      el("b", { role: "status" }, this.#state.node),
      el("span", {}, this.#detail.node),
    );
    const theme = el(
      "button",
      { type: "button", class: "icon", "aria-label": "Dark or light", title: "Dark or light  t", click: toggleTheme },
      "◐",
    );
    this.element = el(
      "header",
      { class: "bar" },
      el("h1", {}, "Floorcast"),
      el("nav", { "aria-label": "Places" }, ...this.#links),
      this.#pill,
      theme,
      el("button", { type: "button", class: "icon", "aria-label": "Keyboard", title: "Keyboard  ?", click: help }, "?"),
    );
    client.connection.subscribe(() => this.#draw());
    setInterval(() => this.#draw(), 1_000);
    this.#draw();
  }

  /** Mark the place that is shown. */
  mark(place: Place): void {
    for (const link of this.#links) {
      if (link.hash === `#${place.id}`) {
        link.setAttribute("aria-current", "page");
      } else {
        link.removeAttribute("aria-current");
      }
    }
  }

  #draw(): void {
    const { state, error, since, attempt, isDraining, userId } = this.client.connection.get();
    this.#pill.className = `connection ${state}`;
    this.#state.set(isDraining ? "Draining" : STATES[state]);
    if (state === "online") {
      this.#detail.set(userId ?? "");
    } else if (state === "offline") {
      const tries = attempt > 1 ? `, attempt ${attempt}` : "";
      this.#detail.set(`${elapsed(Date.now() - since)}${tries}`);
    } else {
      this.#detail.set(error?.message ?? "");
    }
  }
}
