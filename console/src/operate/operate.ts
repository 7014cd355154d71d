/** The place *Operate*: nodes, connections, topics and sessions, over the HTTP API. */
import { el } from "../kit/elements.js";
import type { Place } from "../place.js";

export const operate: Place = {
  id: "operate",
  title: "Operate",
  open(_context, section) {
    section.append(el("p", { class: "hint" }, "Coming soon."));
    return {};
  },
};
