/** Makes elements and changes their text, without touching what is already right. */

type Attribute = string | number | boolean | ((event: never) => void);
type Child = Node | string;

/**
 * Make an element. A function is a listener of the event that its name says (`click`), `true` an
 * attribute without a value. There is no `style`: the policy of the page refuses it.
 */
export function el<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Record<string, Attribute> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name, value as (event: Event) => void);
    } else if (value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children);
  return element;
}

/** Text that changes often: writes to the document only if it differs. */
export class Text {
  readonly node = document.createTextNode("");

  set(text: string): boolean {
    if (this.node.data === text) {
      return false;
    }
    this.node.data = text;
    return true;
  }
}

/** A row of buttons of which one is chosen; `mark` shows a choice that was made elsewhere. */
export function choice<T extends string | number>(
  label: string,
  options: readonly (readonly [value: T, text: string])[],
  chosen: T,
  choose: (value: T) => void,
): { element: HTMLElement; choose(value: T): void; mark(value: T): void } {
  const buttons = options.map(([value, text]) =>
    el("button", { type: "button", click: () => select(value) }, text),
  );
  const mark = (value: T) =>
    options.forEach(([each], index) =>
      buttons[index]?.setAttribute("aria-pressed", String(each === value)),
    );
  const select = (value: T) => {
    mark(value);
    choose(value);
  };
  mark(chosen);
  const element = el("div", { class: "choice", role: "group", "aria-label": label }, ...buttons);
  return { element, choose: select, mark };
}
