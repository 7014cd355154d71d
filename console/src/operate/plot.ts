/** A small plot of the last minutes of one figure, with its newest value. */
import { el, Text } from "../kit/elements.js";

const WIDTH = 160;
const HEIGHT = 36;
const SAMPLES = 90;
const SVG = "http://www.w3.org/2000/svg";

export class Plot {
  readonly element: HTMLElement;
  readonly #value = new Text();
  readonly #line = document.createElementNS(SVG, "path");
  readonly #area = document.createElementNS(SVG, "path");
  #samples: number[] = [];

  constructor(
    title: string,
    private readonly format: (value: number) => string,
  ) {
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("aria-hidden", "true");
    this.#area.setAttribute("class", "area");
    picture.append(this.#area, this.#line);
    this.element = el(
      "section",
      { class: "panel plot", "aria-label": title },
      el("h2", {}, title),
      el("p", { class: "value" }, this.#value.node),
      picture,
    );
  }

  add(value: number | null): void {
    if (value === null) {
      this.#value.set("–");
      return;
    }
    this.#value.set(this.format(value));
    this.#samples = [...this.#samples, value].slice(-SAMPLES);
    const top = Math.max(...this.#samples, 1e-9) * 1.15;
    const points = this.#samples.map((each, index) => {
      const x = WIDTH - ((this.#samples.length - 1 - index) / (SAMPLES - 1)) * WIDTH;
      return `${x.toFixed(1)} ${(HEIGHT - 1 - (each / top) * (HEIGHT - 2)).toFixed(1)}`;
    });
    const line = `M${points.join("L")}`;
    const first = points[0]?.split(" ")[0] ?? "0";
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", `${line}L${WIDTH} ${HEIGHT}L${first} ${HEIGHT}Z`);
  }
}
