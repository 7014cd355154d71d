/** Draws what the server sends above what a line gets: a slanted stroke is a late message. */
import { el } from "../kit/elements.js";
import { colour } from "../kit/theme.js";
import type { Deliveries } from "./deliveries.js";

const SHOWN_MS = 30_000;
const HEIGHT = 92;
const TOP = 22;
const BOTTOM = 70;
const LABELS_WIDTH = 66;

export class Strip {
  readonly element = el("canvas", {
    class: "strip",
    role: "img",
    "aria-label": "The last 30 seconds: what the server sent, and when this line got it",
  });
  readonly #context = this.element.getContext("2d") as CanvasRenderingContext2D;

  draw(deliveries: Deliveries, now: number): void {
    const { element } = this;
    const width = element.clientWidth;
    const scale = devicePixelRatio;
    if (width === 0) {
      return;
    }
    if (element.width !== Math.round(width * scale)) {
      element.width = Math.round(width * scale);
      element.height = HEIGHT * scale;
    }
    this.#context.setTransform(scale, 0, 0, scale, 0, 0);
    this.#context.clearRect(0, 0, width, HEIGHT);
    const x = (at: number) => width - ((now - at) / SHOWN_MS) * (width - LABELS_WIDTH);
    this.#drawCut(deliveries, x, width);
    this.#drawRails(width);
    for (const { sentAt, arrivedAt, isReplayed } of deliveries.all) {
      const from = sentAt ?? arrivedAt;
      if (from !== null && now - from < SHOWN_MS) {
        this.#drawMessage(x(from), arrivedAt === null ? null : x(arrivedAt), isReplayed);
      }
    }
  }

  #drawCut({ cutAt, backAt }: Deliveries, x: (at: number) => number, width: number): void {
    if (cutAt !== null) {
      const from = Math.max(LABELS_WIDTH, x(cutAt));
      const to = backAt === null ? width : Math.max(LABELS_WIDTH, x(backAt));
      this.#context.fillStyle = colour("--down-wash");
      this.#context.fillRect(from, BOTTOM - 14, to - from, 28);
    }
  }

  #drawRails(width: number): void {
    const context = this.#context;
    context.font = `11px ${getComputedStyle(this.element).fontFamily}`;
    context.textBaseline = "middle";
    for (const [y, text] of [[TOP, "Server"], [BOTTOM, "My line"]] as const) {
      context.fillStyle = colour("--dim");
      context.fillText(text, 12, y);
      context.fillStyle = colour("--line");
      context.fillRect(LABELS_WIDTH, y - 0.5, width - LABELS_WIDTH, 1);
    }
  }

  #drawMessage(from: number, to: number | null, isReplayed: boolean): void {
    const context = this.#context;
    if (from < LABELS_WIDTH) {
      return;
    }
    const tone = colour(to === null ? "--down" : isReplayed ? "--accent" : "--up");
    context.fillStyle = tone;
    context.fillRect(from - 1, TOP - 6, 2, 12);
    if (to !== null) {
      context.fillRect(to - 1, BOTTOM - 6, 2, 12);
      context.strokeStyle = tone;
      context.globalAlpha = isReplayed ? 0.55 : 0.25;
      context.beginPath();
      context.moveTo(from, TOP + 7);
      context.lineTo(to, BOTTOM - 7);
      context.stroke();
      context.globalAlpha = 1;
    }
  }
}
