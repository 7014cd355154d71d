/** Ids for messages: `crypto.randomUUID` is missing in pages without TLS. */

export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((each) => each.toString(16).padStart(2, "0")).join("");
}
