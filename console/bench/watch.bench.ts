/**
 * Measures in Chromium what *Watch* costs while every update comes; `benchmarks/browser.py` runs
 * it. It prints figures, and asserts nothing that depends on the machine.
 */
import { it } from "vitest";
import { measure } from "../../client_js/bench/measure.js";
import { Browser } from "../../client_js/test/browser/kit.js";

const SECONDS = 10;

it("the console", async () => {
  const [url] = JSON.parse(process.env["FLOORCAST_URLS"] ?? "[]") as string[];
  const browser = new Browser();
  let updates = 0;
  const page = await browser.open("about:blank", async (each) => {
    each.on("websocket", (socket) =>
      socket.on("framereceived", ({ payload }) => {
        updates += String(payload).includes('["price",') ? 1 : 0;
      }),
    );
  });
  await page.setViewportSize({ width: 1440, height: 860 });
  await page.goto(url ?? "");
  await page.getByRole("button", { name: "all", exact: true }).click();
  await page.locator(".ladder .badge.good").waitFor();
  await page.waitForTimeout(8_000);
  updates = 0;
  const measured = await measure(page, SECONDS);
  console.log(`the console: ${(updates / SECONDS).toFixed(0)} prices/s, ${measured}`);
  await browser.close();
});
