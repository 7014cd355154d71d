/** A line of the last minutes, a few letters high. */

const SVG = "http://www.w3.org/2000/svg";

/** An SVG and no canvas: each of these would be a layer of its own, which costs in every frame. */
export class Sparkline {
  readonly element = document.createElementNS(SVG, "svg");
  readonly #path = document.createElementNS(SVG, "path");
  #drawn = "";

  constructor(
    private readonly width: number,
    private readonly height: number,
  ) {
    this.element.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.element.setAttribute("aria-hidden", "true");
    this.element.append(this.#path);
  }

  draw(values: readonly number[]): void {
    const [first, last] = [values[0], values.at(-1)];
    if (values.length < 2 || first === undefined || last === undefined) {
      return;
    }
    const { width, height } = this;
    const low = Math.min(...values);
    const high = Math.max(...values);
    const x = (index: number) => 1 + (index * (width - 2)) / (values.length - 1);
    const y = (value: number) =>
      high === low ? height / 2 : 2 + ((high - value) * (height - 4)) / (high - low);
    const points = values.map((value, index) => `${x(index).toFixed(1)} ${y(value).toFixed(1)}`);
    const drawn = `M${points.join("L")}`;
    if (drawn !== this.#drawn) {
      this.#drawn = drawn;
      this.#path.setAttribute("d", drawn);
      this.element.setAttribute("class", last >= first ? "spark up" : "spark down");
    }
  }
}
