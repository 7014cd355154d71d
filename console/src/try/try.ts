/** The place *Try*: what happens to a client that is cut, slow, or not alone. */
import type { Context, Place, PlaceShortcut, PlaceView } from "../place.js";
import { CutExperiment } from "./cut.js";
import { PublishExperiment } from "./publish.js";
import { RoomExperiment } from "./room.js";
import { SlowExperiment } from "./slow.js";

class TryView implements PlaceView {
  static readonly shortcuts: readonly PlaceShortcut<TryView>[] = [
    { keys: ["c"], text: "Cut my line", run: (view) => view.#cut.cut() },
    { keys: ["p"], text: "The next pace of the slow reader", run: (view) => view.#slow.nextPace() },
    { keys: ["m"], text: "Write a message", run: (view) => view.#room.focus() },
    { keys: ["e"], text: "Edit what is published", run: (view) => view.#publish.focus() },
  ];
  readonly #cut: CutExperiment;
  readonly #slow: SlowExperiment;
  readonly #room: RoomExperiment;
  readonly #publish: PublishExperiment;
  readonly #running: readonly { start(): void; stop(): void }[];

  constructor(context: Context, section: HTMLElement) {
    this.#cut = new CutExperiment(context);
    this.#slow = new SlowExperiment(context);
    this.#room = new RoomExperiment(context);
    this.#publish = new PublishExperiment(context);
    this.#running = [this.#cut, this.#slow, this.#room];
    const parts = [this.#cut, this.#slow, this.#room, this.#publish];
    section.append(...parts.map(({ element }) => element));
  }

  show(): void {
    this.#running.forEach((each) => each.start());
  }

  hide(): void {
    this.#running.forEach((each) => each.stop());
  }
}

export const tryOut: Place<TryView> = {
  id: "try",
  title: "Try",
  shortcuts: TryView.shortcuts,
  open: (context, section) => new TryView(context, section),
};
