/** Exact comparison of decimal strings: a price must not lose digits to a float. */

/** Below 0 if `a` is the smaller number, 0 if they are equal. */
export function compareDecimals(a: string, b: string): number {
  const difference = Number(a) - Number(b);
  // Floats that differ are in the right order; equal ones may hide further digits.
  return difference !== 0 || a === b ? difference : compareExactly(a, b);
}

function compareExactly(a: string, b: string): number {
  const places = Math.max(fraction(a).length, fraction(b).length);
  const difference = scaled(a, places) - scaled(b, places);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

function fraction(text: string): string {
  return text.split(".")[1] ?? "";
}

function scaled(text: string, places: number): bigint {
  return BigInt(text.split(".")[0] + fraction(text).padEnd(places, "0"));
}

/** Whether a quantity is zero, which removes a level. */
export function isZero(quantity: string): boolean {
  return !/[1-9]/.test(quantity);
}
