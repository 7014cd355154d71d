/** The place *Watch*: prices, a chart, the book and the trades of a symbol. */
import { el } from "../kit/elements.js";
import type { Place } from "../place.js";

export const watch: Place = {
  id: "watch",
  title: "Watch",
  open(context, section) {
    const list = el("ul");
    const instruments = context.client.market.instruments();
    instruments.subscribe(() => {
      list.replaceChildren(...instruments.get().instruments.map(({ symbol }) => el("li", {}, symbol)));
    });
    section.append(list);
    return {};
  },
};
