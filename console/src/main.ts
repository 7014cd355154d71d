/** The console: a bar, and the places of which one is shown. */
import { Client } from "@floorcast/client";
import { Bar } from "./bar.js";
import { Access, BASE } from "./kit/access.js";
import { Api } from "./kit/api.js";
import { el } from "./kit/elements.js";
import { Shortcuts } from "./kit/shortcuts.js";
import { startTheme, toggleTheme } from "./kit/theme.js";
import { Toasts } from "./kit/toasts.js";
import { operate } from "./operate/operate.js";
import type { Context, Place, PlaceView } from "./place.js";
import { tryOut } from "./try/try.js";
import { UpdateNotice } from "./update.js";
import { watch } from "./watch/watch.js";
import "./style/console.css";

/** In the order of the bar; the first one is shown without a `#` in the address. */
const PLACES: readonly Place[] = [watch, tryOut, operate];

class Places {
  readonly element = el("main");
  readonly #open = new Map<Place, { section: HTMLElement; view: PlaceView }>();
  #shown: Place | null = null;

  constructor(
    private readonly places: readonly Place[],
    private readonly context: Context,
    private readonly bar: Bar,
    shortcuts: Shortcuts,
  ) {
    for (const place of places) {
      const keys = place.shortcuts.map(({ keys, text, run }) => ({ keys, text, run: () => this.#run(place, run) }));
      shortcuts.add(place.title, keys, () => place === this.#shown);
    }
    addEventListener("hashchange", () => this.#showAddress());
    this.#showAddress();
  }

  #showAddress(): void {
    const id = location.hash.slice(1);
    this.#show(this.places.find((each) => each.id === id) ?? watch);
  }

  #show(place: Place): void {
    if (place === this.#shown) {
      return;
    }
    if (this.#shown !== null) {
      const before = this.#open.get(this.#shown);
      before?.section.toggleAttribute("hidden", true);
      before?.view.hide?.();
    }
    this.#shown = place;
    this.bar.mark(place);
    const opened = this.#open.get(place);
    opened?.section.toggleAttribute("hidden", false);
    const { view } = opened ?? this.#openFirst(place);
    view.show?.();
  }

  #run(place: Place, run: (view: PlaceView) => void): void {
    const opened = this.#open.get(place);
    if (opened !== undefined) {
      run(opened.view);
    }
  }

  #openFirst(place: Place): { view: PlaceView } {
    const section = el("section", { id: place.id, "aria-label": place.title, class: "place" });
    this.element.append(section);
    const opened = { section, view: place.open(this.context, section) };
    this.#open.set(place, opened);
    return opened;
  }
}

/** The server refused the token that was entered: ask for another one. */
function askAgain(client: Client, access: Access): void {
  let isAsking = false;
  client.connection.subscribe(() => {
    const { state, error } = client.connection.get();
    if (state === "refused" && error?.code.startsWith("auth.") && !isAsking) {
      isAsking = true;
      void access.enter(error.message).then(() => {
        isAsking = false;
        client.reconnect();
      });
    }
  });
}

async function start(): Promise<void> {
  startTheme();
  const access = new Access();
  await access.start();
  const client = new Client(BASE, { token: access.token, transports: ["websocket"] });
  const toasts = new Toasts();
  const shortcuts = new Shortcuts();
  const places = PLACES.filter(({ scope }) => scope === undefined || access.may(scope));
  const bar = new Bar(places, client, () => shortcuts.help());
  shortcuts.add("Everywhere", [
    ...places.map(({ id, title }, index) => ({
      keys: [`${index + 1}`],
      text: title,
      run: () => (location.hash = id),
    })),
    { keys: ["t"], text: "Dark or light", run: toggleTheme },
    { keys: ["?"], text: "This help", run: () => shortcuts.help() },
  ]);
  const context = { client, access, api: new Api(access), toasts };
  const shown = new Places(places, context, bar, shortcuts);
  const update = new UpdateNotice(client, access);
  document.body.append(bar.element, update.element, shown.element, toasts.element);
  askAgain(client, access);
  // The bar shows the connection in places that do not use it, too.
  client.connect();
}

void start();
