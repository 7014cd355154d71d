/**
 * Measures in Chromium what many components with prices of their own cost; `benchmarks/browser.py`
 * runs it. It prints figures, and asserts nothing that depends on the machine.
 */
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { Browser, serve } from "../test/browser/kit.js";
import { token, urls } from "../test/server/kit.js";

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
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  const metric = async (name: string) => {
    const { metrics } = await session.send("Performance.getMetrics");
    return metrics.find((each) => each.name === name)?.value ?? 0;
  };
  await page.evaluate("Object.assign(figures, { renders: 0, updates: 0, frames: [] })");
  const [tasks, scripts] = [await metric("TaskDuration"), await metric("ScriptDuration")];
  await page.waitForTimeout(SECONDS * 1_000);
  const busy = ((await metric("TaskDuration")) - tasks) / SECONDS;
  const script = ((await metric("ScriptDuration")) - scripts) / SECONDS;
  const { renders, updates, frames } = (await page.evaluate("figures")) as {
    renders: number;
    updates: number;
    frames: number[];
  };
  frames.sort((a, b) => a - b);
  const rank = (share: number) => (frames[Math.floor(share * (frames.length - 1))] ?? 0).toFixed(1);
  const percent = (share: number) => `${(100 * share).toFixed(0)}%`;
  console.log(
    `${(updates / SECONDS).toFixed(0)} updates/s, ${(renders / SECONDS).toFixed(0)} renders/s, ` +
      `${(frames.length / SECONDS).toFixed(1)} frames/s; ms between frames: p50 ${rank(0.5)}, ` +
      `p99 ${rank(0.99)}, most ${rank(1)}; ${frames.filter((each) => each > 25).length} dropped; ` +
      `main thread ${percent(busy)}, of it scripts ${percent(script)}`,
  );
  await browser.close();
  await served.close();
});
