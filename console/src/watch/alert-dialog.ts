/** The dialog with the alerts of a symbol. */
import { el } from "../kit/elements.js";
import { decimal } from "../kit/format.js";
import type { Alerts } from "./alerts.js";

export function openAlerts(
  alerts: Alerts,
  symbol: string,
  last: string | null,
  changed: () => void,
): void {
  const field = el("input", {
    id: "alert-level",
    inputmode: "decimal",
    pattern: "[0-9]+(\\.[0-9]+)?",
    required: true,
    autocomplete: "off",
    value: last ?? "",
  });
  const list = el("ul");
  const draw = () => {
    const lines = alerts.of(symbol).map((level) => {
      const remove = () => {
        alerts.remove(symbol, level);
        changed();
        draw();
      };
      const label = `Remove ${level}`;
      return el("li", {}, decimal(level), el("button", { type: "button", "aria-label": label, click: remove }, "×"));
    });
    list.replaceChildren(...lines);
  };
  const submit = (event: Event) => {
    event.preventDefault();
    alerts.add(symbol, field.value);
    void askToNotify();
    changed();
    draw();
    field.select();
  };
  const stale = el("input", {
    type: "checkbox",
    checked: alerts.reportsStale,
    change: () => {
      alerts.reportsStale = stale.checked;
      changed();
    },
  });
  const dialog = el(
    "dialog",
    { class: "alerts", "aria-labelledby": "alerts-title", close: () => dialog.remove() },
    el("h1", { id: "alerts-title" }, `Alerts for ${symbol}`),
    el(
      "form",
      { submit },
      el("label", { for: "alert-level" }, "When the price reaches"),
      field,
      el("button", { class: "primary" }, "Add"),
    ),
    list,
    el("label", { class: "check" }, stale, "When any symbol turns stale"),
    el("button", { type: "button", click: () => dialog.close() }, "Close"),
  );
  draw();
  document.body.append(dialog);
  dialog.showModal();
  field.select();
}

async function askToNotify(): Promise<void> {
  if ("Notification" in window && Notification.permission === "default") {
    await Notification.requestPermission();
  }
}

/** A notification of the system, if the page is hidden and may show one. */
export function notify(text: string): void {
  if (document.hidden && "Notification" in window && Notification.permission === "granted") {
    new Notification("Floorcast", { body: text });
  }
}
