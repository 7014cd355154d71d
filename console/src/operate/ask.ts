/** Asks before something that cannot be taken back. */
import { el } from "../kit/elements.js";

/** Resolves true if the user agrees. */
export function ask(title: string, text: string, action: string): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog = el(
      "dialog",
      {
        class: "ask",
        "aria-labelledby": "ask-title",
        close: () => {
          dialog.remove();
          resolve(dialog.returnValue === "yes");
        },
      },
      el("h1", { id: "ask-title" }, title),
      el("p", {}, text),
      el(
        "div",
        { class: "buttons" },
        el("button", { type: "button", autofocus: true, click: () => dialog.close() }, "Cancel"),
        el("button", { type: "button", class: "danger", click: () => dialog.close("yes") }, action),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
