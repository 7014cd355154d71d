/** The steps by which a ladder groups prices: 1 and 5 of each decade, as the server spells them. */

/** A step of a twentieth of the price leaves a handful of groups. */
const LARGEST_SHARE = 0.05;
const DIGITS = [1, 5] as const;

/** The steps above a tick size that make sense at a price, the smallest first. */
export function stepsOf(tickSize: string, price: number): readonly string[] {
  const tick = Number(tickSize);
  const steps: string[] = [];
  if (!(tick > 0) || !Number.isFinite(price)) {
    return steps;
  }
  for (let exponent = Math.floor(Math.log10(tick)); 10 ** exponent <= price; exponent += 1) {
    for (const digit of DIGITS) {
      const step = digit * 10 ** exponent;
      // Powers of ten below 1 are no exact floats.
      if (step > tick * 1.001 && step <= price * LARGEST_SHARE) {
        steps.push(spelled(digit, exponent));
      }
    }
  }
  return steps;
}

/** The tick size that the digits of a price show. */
export function tickOf(price: string): string {
  const places = price.split(".")[1]?.length ?? 0;
  return spelled(1, -places);
}

function spelled(digit: number, exponent: number): string {
  return exponent >= 0 ? `${digit}${"0".repeat(exponent)}` : `0.${"0".repeat(-exponent - 1)}${digit}`;
}
