/** A table of which only what has changed is written, row by row. */
import { el, Text } from "../kit/elements.js";

export interface Column<T> {
  readonly title: string;
  readonly text: (item: T) => string;
  /** Aligned to the left. */
  readonly isText?: boolean;
  readonly hint?: (item: T) => string;
  /** A class of the cell, such as `warn`. */
  readonly tone?: (item: T) => string;
}

export interface Action<T> {
  readonly label: string;
  readonly isDangerous?: boolean;
  readonly run: (item: T) => void;
  readonly isOffered?: (item: T) => boolean;
}

class Row<T> {
  readonly element: HTMLTableRowElement;
  readonly #texts: Text[] = [];
  readonly #cells: HTMLTableCellElement[] = [];
  readonly #buttons: HTMLButtonElement[] = [];
  #item: T;

  constructor(
    item: T,
    private readonly columns: readonly Column<T>[],
    private readonly actions: readonly Action<T>[],
  ) {
    this.#item = item;
    this.element = el("tr");
    columns.forEach(({ isText }, index) => {
      const text = new Text();
      const cell = index === 0 ? el("th", { scope: "row" }, text.node) : el("td", {}, text.node);
      cell.classList.toggle("text", isText === true);
      this.#texts.push(text);
      this.#cells.push(cell);
      this.element.append(cell);
    });
    if (actions.length > 0) {
      this.#buttons = actions.map(({ label, isDangerous, run }) =>
        el(
          "button",
          { type: "button", class: isDangerous === true ? "danger" : "", click: () => run(this.#item) },
          label,
        ),
      );
      this.element.append(el("td", { class: "actions" }, ...this.#buttons));
    }
    this.set(item);
  }

  set(item: T): void {
    this.#item = item;
    this.columns.forEach(({ text, hint, tone, isText }, index) => {
      this.#texts[index]?.set(text(item));
      const cell = this.#cells[index];
      if (cell !== undefined && hint !== undefined) {
        cell.title = hint(item);
      }
      if (cell !== undefined && tone !== undefined) {
        cell.className = `${isText === true ? "text " : ""}${tone(item)}`;
      }
    });
    const name = this.columns[0]?.text(item) ?? "";
    this.actions.forEach(({ label, isOffered }, index) => {
      const button = this.#buttons[index];
      button?.toggleAttribute("hidden", isOffered !== undefined && !isOffered(item));
      button?.setAttribute("aria-label", `${label} ${name}`);
    });
  }
}

export class Table<T> {
  readonly element: HTMLElement;
  readonly #body = el("tbody");
  readonly #rows = new Map<string, Row<T>>();
  readonly #empty: HTMLElement;

  constructor(
    title: string,
    private readonly columns: readonly Column<T>[],
    private readonly keyOf: (item: T) => string,
    private readonly actions: readonly Action<T>[] = [],
    empty = "None.",
  ) {
    const headers = columns.map(({ title: text, isText }) =>
      el("th", { scope: "col", class: isText === true ? "text" : "" }, text),
    );
    if (actions.length > 0) {
      headers.push(el("th", { scope: "col" }, el("span", { class: "unseen" }, "Actions")));
    }
    this.#empty = el("p", { class: "hint empty" }, empty);
    this.element = el(
      "div",
      { class: "rows", tabindex: "0", role: "group", "aria-label": title },
      el("table", {}, el("thead", {}, el("tr", {}, ...headers)), this.#body),
      this.#empty,
    );
  }

  /** Show these, in this order; rows that stay are not made anew. */
  show(items: readonly T[]): void {
    const keys = new Set(items.map(this.keyOf));
    for (const [key, row] of this.#rows) {
      if (!keys.has(key)) {
        row.element.remove();
        this.#rows.delete(key);
      }
    }
    let next = this.#body.firstElementChild;
    for (const item of items) {
      const key = this.keyOf(item);
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = new Row(item, this.columns, this.actions);
        this.#rows.set(key, row);
      } else {
        row.set(item);
      }
      if (row.element === next) {
        next = next.nextElementSibling;
      } else {
        this.#body.insertBefore(row.element, next);
      }
    }
    this.#empty.toggleAttribute("hidden", items.length > 0);
  }
}
