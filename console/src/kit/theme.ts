/** The theme: that of the system, or the one that was chosen; colours for what is drawn. */
import { el } from "./elements.js";
import { preference } from "./preferences.js";

type Theme = "system" | "light" | "dark";

const chosen = preference<Theme>("theme", "system");
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();
const colours = new Map<string, string>();
let probe: HTMLElement | null = null;

export function isDark(): boolean {
  return chosen.get() === "system" ? system.matches : chosen.get() === "dark";
}

/** Call after each change of the theme. */
export function onTheme(call: () => void): void {
  listeners.add(call);
}

/** The value of a colour of the style sheet, such as `--up`, for a canvas. */
export function colour(name: string): string {
  let value = colours.get(name);
  if (value === undefined) {
    if (probe === null) {
      probe = el("i", { hidden: true });
      document.body.append(probe);
    }
    probe.style.color = `var(${name})`;
    value = getComputedStyle(probe).color;
    colours.set(name, value);
  }
  return value;
}

function apply(): void {
  const theme = chosen.get();
  document.documentElement.style.colorScheme = theme === "system" ? "" : theme;
  colours.clear();
  listeners.forEach((call) => call());
}

export function toggleTheme(): void {
  const theme = isDark() ? "light" : "dark";
  chosen.set(theme === (system.matches ? "dark" : "light") ? "system" : theme);
  apply();
}

export function startTheme(): void {
  system.addEventListener("change", apply);
  apply();
}
