/**
 * Measures in Chromium what many components with prices of their own cost; `benchmarks/browser.py`
 * runs it. It prints figures, and asserts nothing that depends on the machine.
 */
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { Browser, serve } from "../test/browser/kit.js";
import { token, urls } from "../test/server/kit.js";
import { measure } from "./measure.js";

const COMPONENTS = 200;
const SECONDS = 10;
const KNOWN = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD"];

it(`${COMPONENTS} components`, async () => {
  const others = Array.from({ length: COMPONENTS - KNOWN.length }, (_, index) => index + 5);
  const made = others.map((number) => `SYM${String(number).padStart(3, "0")}USDT`);
  const symbols = [...KNOWN, ...made].join(",");
  const served = await serve(fileURLToPath(new URL("page", import.meta.url)));
  const browser = new Browser();
  const query = new URLSearchParams({ url: urls()[0] as string, token: token("ann"), symbols });
  const page = await browser.open(`${served.url}?${query}`);
  await expect
    .poll(() => page.evaluate("figures.live"), { timeout: 30_000 })
    .toBe(COMPONENTS);
  await page.waitForTimeout(2_000);
  await page.evaluate("Object.assign(figures, { renders: 0, updates: 0 })");
  const measured = await measure(page, SECONDS);
  const { renders, updates } = (await page.evaluate("figures")) as {
    renders: number;
    updates: number;
  };
  const rate = (count: number) => (count / SECONDS).toFixed(0);
  console.log(`${rate(updates)} updates/s, ${rate(renders)} renders/s, ${measured}`);
  await browser.close();
  await served.close();
});
