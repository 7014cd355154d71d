/** The place *Try*: what happens to a client that is cut, slow, or not alone. */
import type { Context, Place, PlaceView } from "../place.js";
import { CutExperiment } from "./cut.js";
import { PublishExperiment } from "./publish.js";
import { RoomExperiment } from "./room.js";
import { SlowExperiment } from "./slow.js";

class TryView implements PlaceView {
  readonly #running: readonly { start(): void; stop(): void }[];

  constructor(context: Context, section: HTMLElement) {
    const cut = new CutExperiment(context);
    const slow = new SlowExperiment(context);
    const room = new RoomExperiment(context);
    const publish = new PublishExperiment(context);
    this.#running = [cut, slow, room];
    section.append(cut.element, slow.element, room.element, publish.element);
  }

  show(): void {
    this.#running.forEach((each) => each.start());
  }

  hide(): void {
    this.#running.forEach((each) => each.stop());
  }
}

export const tryOut: Place = {
  id: "try",
  title: "Try",
  open: (context, section) => new TryView(context, section),
};
