/** The place *Try*: what happens to a client that is cut, slow, or not alone. */
import { el } from "../kit/elements.js";
import type { Place } from "../place.js";

export const tryOut: Place = {
  id: "try",
  title: "Try",
  open(_context, section) {
    section.append(el("p", { class: "hint" }, "Coming soon."));
    return {};
  },
};
