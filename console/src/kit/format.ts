/** Numbers and times as people read them; prices keep the digits that were published. */

/** A decimal as published, with its thousands apart. */
export function decimal(text: string): string {
  const [whole = "", fraction] = text.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

/** The digits after the point. */
export function places(text: string): number {
  return text.split(".")[1]?.length ?? 0;
}

/** A decimal with so many digits after the point, as prices below each other have. */
export function padded(text: string, digits: number): string {
  const missing = digits - places(text);
  return missing <= 0 ? text : `${text}${text.includes(".") ? "" : "."}${"0".repeat(missing)}`;
}

/** How old something is: `0.4 s`, `12 s`, `3 min`, `2 h`. */
export function age(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1_000;
  if (seconds < 9.95) {
    return `${seconds.toFixed(1)} s`;
  }
  if (seconds < 99.5) {
    return `${seconds.toFixed(0)} s`;
  }
  return seconds < 5_970 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3_600).toFixed(0)} h`;
}

/** The same in whole seconds, for what is counted up. */
export function elapsed(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1_000);
  return seconds < 100 ? `${Math.max(0, seconds)} s` : age(milliseconds);
}

/** The class of a change that `percent` shows: none if it shows no sign. */
export function direction(share: number): "up" | "down" | "" {
  return Math.abs(share) * 100 < 0.005 || Number.isNaN(share) ? "" : share > 0 ? "up" : "down";
}

/** A change in percent, with its sign. */
export function percent(share: number): string {
  const text = (Math.abs(share) * 100).toFixed(2);
  const sign = { up: "+", down: "−", "": "" }[direction(share)];
  return `${sign}${text}%`;
}

/** A quantity in few characters: `950`, `12.3k`, `4.56M`. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 999_500) {
    return size >= 999_500_000 ? `${digits(value / 1e9)}B` : `${digits(value / 1e6)}M`;
  }
  return size >= 10_000 ? `${digits(value / 1e3)}k` : digits(value);
}

function digits(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

/** A count with its noun. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/** The local time of day. */
export function clock(ts: number): string {
  return CLOCK.format(ts);
}
