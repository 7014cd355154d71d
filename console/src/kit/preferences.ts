/** What the user has chosen, kept in this browser. */

const PREFIX = "floorcast.";

export interface Preference<T> {
  get(): T;
  set(value: T): void;
}

/** A preference by its name; a browser that keeps nothing has the fallback. */
export function preference<T>(name: string, fallback: T): Preference<T> {
  let current = read(name, fallback);
  return {
    get: () => current,
    set(value) {
      current = value;
      try {
        localStorage.setItem(PREFIX + name, JSON.stringify(value));
      } catch {
        // Private windows and full storages keep it for this page only.
      }
    },
  };
}

function read<T>(name: string, fallback: T): T {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? fallback : (JSON.parse(text) as T);
  } catch {
    return fallback;
  }
}
