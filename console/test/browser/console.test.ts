import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Browser, Demo, LONG, type Page } from "./kit.js";
import { testOperate } from "./operate.js";
import { testTry } from "./try.js";

const browser = new Browser();
const demo = new Demo();
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let page: Page;

const row = (symbol: string) => page.locator(`tr[data-symbol="${symbol}"]`);
const cell = (symbol: string, name: string) => row(symbol).locator(`td.${name}`);
const toast = (text: string) => page.locator(".toast", { hasText: text });
const price = (last: string) => ({
  topic: "PRICE:MYCOIN",
  data: { bid: "1.00", ask: "1.02", last, volume: "5" },
});

/** What axe finds that keeps people from using the page. */
async function barriers(): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(`axe.run().then(({ violations }) =>
    violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .flatMap(({ id, nodes }) => nodes.map(({ target }) => id + " " + target)))`);
}

beforeAll(async () => {
  await demo.start({ FLOORCAST_MARKET__PRICE_STALE_SECONDS: "3" });
  page = await browser.open(demo.url);
});

afterAll(async () => {
  await browser.close();
  await demo.kill();
});

it("shows moving prices with the token of the demo", async () => {
  await page.locator(".connection.online").waitFor();
  await expect.poll(() => page.locator(".watch-list tbody tr:not(.dimmed)").count(), LONG).toBe(4);
  const symbols = await page.locator(".watch-list tbody th").allTextContents();
  expect(symbols).toEqual(["BTCUSDT", "ETHUSDT", "EURUSD", "SOLUSDT"]);
  const before = await cell("ETHUSDT", "last").textContent();
  await expect.poll(() => cell("ETHUSDT", "last").textContent(), LONG).not.toBe(before);
  await expect.poll(() => page.title(), LONG).toMatch(/^[\d,]+\.\d\d BTCUSDT · Floorcast$/);
  await page.locator('tr[data-symbol="ETHUSDT"] svg path[d]').waitFor({ state: "attached" });
});

it("shows the verified book, the last trades at once, and candles", async () => {
  await page.locator(".ladder .badge.good", { hasText: "checksum OK" }).waitFor();
  const side = async (name: string) =>
    (await page.locator(`.ladder .${name} .price`).allTextContents()).map((each) =>
      Number(each.replaceAll(",", "")),
    );
  const [asks, bids] = [await side("asks"), await side("bids")];
  const ladder = [...asks, ...bids];
  expect(ladder).toEqual([...ladder].sort((a, b) => b - a));
  expect(ladder).toHaveLength(20);
  await page.locator(".tape tbody tr").nth(5).waitFor();
  await page.locator(".chart .legend", { hasText: /^O [\d,.]+ {2}H/ }).waitFor();
});

it("shows another symbol by keyboard, and finds one by its name", async () => {
  await row("BTCUSDT").getByRole("button").focus();
  await page.keyboard.press("ArrowDown");
  await page.locator(".headline h2", { hasText: "ETHUSDT" }).waitFor();
  expect(await page.evaluate("document.activeElement.textContent")).toBe("ETHUSDT");
  await expect.poll(() => page.title(), LONG).toContain("ETHUSDT");
  await page.keyboard.press("/");
  await page.keyboard.type("eur");
  expect(await page.locator(".watch-list tbody tr:visible").count()).toBe(1);
  await page.keyboard.press("Enter");
  await page.locator(".headline h2", { hasText: "EURUSD" }).waitFor();
  await page.keyboard.press("/");
  await page.keyboard.press("Escape");
  expect(await page.locator(".watch-list tbody tr:visible").count()).toBe(4);
  await page.keyboard.press("?");
  const help = page.getByRole("dialog");
  // The other places have not been opened so far.
  for (const text of ["The next pace", "Cut my line", "Search the list"]) {
    await help.getByText(text, { exact: true }).waitFor();
  }
  await page.keyboard.press("Escape");
});

it("groups the book by a price step and shows more levels of it, by keyboard", async () => {
  await row("BTCUSDT").click();
  const grouping = page.getByLabel("Group by", { exact: true });
  const middle = page.locator(".ladder .middle");
  await grouping.locator("option", { hasText: /^5$/ }).waitFor({ state: "attached" });
  for (const step of ["0.05", "0.1", "0.5", "1", "5"]) {
    await page.keyboard.press("g");
    await middle.getByText(`Grouped by ${step}`, { exact: true }).waitFor();
  }
  const levels = async () =>
    (await page.locator(".ladder tr .price").allTextContents())
      .map((each) => Number(each.replaceAll(",", "")))
      .filter((each) => each > 0);
  await expect.poll(async () => (await levels()).every((each) => each % 5 === 0), LONG).toBe(true);
  await page.locator(".ladder .badge.good", { hasText: "checksum OK" }).waitFor();
  for (const step of ["1", "0.5", "0.1", "0.05"]) {
    await page.keyboard.press("G");
    await middle.getByText(`Grouped by ${step}`, { exact: true }).waitFor();
  }
  await page.keyboard.press("G");
  await middle.getByText(/^Spread \d+\.\d\d$/).waitFor();
  await page.keyboard.press("d");
  await expect.poll(async () => (await levels()).length, LONG).toBe(40);
  await page.getByRole("group", { name: "Levels of each side" }).getByRole("button", { name: "10" }).click();
  await expect.poll(async () => (await levels()).length, LONG).toBe(20);
});

it("shows a symbol that is published for the first time, and reports its level and silence", async () => {
  await demo.publish(price("1.01"));
  await cell("MYCOIN", "last").getByText("1.01").waitFor();
  await row("MYCOIN").click();
  await page.getByRole("button", { name: "Alert" }).click();
  await page.getByLabel("When the price reaches").fill("1.05");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByRole("button", { name: "Close" }).last().click();
  await demo.publish(price("1.06"));
  await toast("MYCOIN has reached 1.05").waitFor();
  await toast("MYCOIN is stale").waitFor();
  await expect.poll(() => row("MYCOIN").getAttribute("class"), LONG).toContain("dimmed");
  await expect.poll(() => page.title(), LONG).toBe("(stale) 1.06 MYCOIN · Floorcast");
  await row("BTCUSDT").click();
});

it("gets fewer updates at a slower pace, at once", async () => {
  const rate = async () => Number(await cell("SOLUSDT", "rate").textContent());
  await page.getByRole("button", { name: "all" }).click();
  await expect.poll(rate, LONG).toBeGreaterThan(3);
  await page.getByRole("button", { name: "1 s", exact: true }).click();
  await expect.poll(rate, LONG).toBeLessThan(1.8);
  await page.getByRole("button", { name: "100 ms" }).click();
  await page.locator(".ladder .badge.good").waitFor();
});

testTry(demo, () => page);
testOperate(demo, browser, () => page);

it("has no barriers in either theme, in any place, and fits a phone", async () => {
  for (const colorScheme of ["dark", "light"] as const) {
    await page.emulateMedia({ colorScheme });
    for (const title of ["Try", "Operate", "Watch"]) {
      await page.getByRole("link", { name: title }).click();
      await page.getByRole("region", { name: title, exact: true }).waitFor();
      expect(await barriers(), `${title}, ${colorScheme}`).toEqual([]);
    }
  }
  const { width, height } = page.viewportSize() ?? { width: 0, height: 0 };
  await page.setViewportSize({ width: 360, height: 700 });
  expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
  expect(await barriers()).toEqual([]);
  await page.setViewportSize({ width, height });
});

it("asks for a token if the server gives none, and takes one with the scope admin only", async () => {
  const other = await browser.open("about:blank", (each) =>
    each.route("**/console/session", (route) =>
      route.fulfill({ json: { token: null, version: "1" } }),
    ),
  );
  await other.goto(demo.url);
  await other.getByLabel("Token with the scope admin").fill(demo.tokens["trader"] ?? "");
  await other.getByRole("button", { name: "Open the console" }).click();
  await other.getByRole("alert").getByText("admin").waitFor();
  await other.getByLabel("Token with the scope admin").fill(demo.tokens["moderator"] ?? "");
  await other.getByRole("button", { name: "Open the console" }).click();
  await other.locator(".connection.online", { hasText: "moderator" }).waitFor();
  await other.close();
  // The refused request; nothing else, and nothing that the policy of the page refuses.
  expect(browser.errors.splice(0)).toEqual([expect.stringContaining("403")]);
});

it("dims what it has while the server is away, and comes back to a new demo by itself", async () => {
  const before = demo.tokens["ops"];
  await demo.kill();
  await page.locator(".connection.offline").waitFor();
  await expect.poll(() => page.locator(".watch-list tbody tr:not(.dimmed)").count(), LONG).toBe(0);
  await page.locator(".ladder.dimmed .badge", { hasText: "offline" }).waitFor();
  await page.locator(".headline .badge", { hasText: /^offline \d/ }).waitFor();
  await expect.poll(() => page.title(), LONG).toMatch(/^\(offline\) /);
  const version = "99.1.0";
  await page.route("**/console/session", async (route) => {
    const session = (await (await route.fetch()).json()) as object;
    await route.fulfill({ json: { ...session, version } });
  });
  await demo.start();
  expect(demo.tokens["ops"]).not.toBe(before);
  await page.locator(".connection.online").waitFor();
  await expect.poll(() => page.locator(".watch-list tbody tr:not(.dimmed)").count(), LONG).toBe(4);
  // The new one does not know what was published to the old one.
  await row("MYCOIN").waitFor({ state: "detached" });
  await page.locator(".ladder:not(.dimmed) .badge.good").waitFor();
  await page.locator(".tape:not(.dimmed) tbody tr").first().waitFor();
  const notice = page.getByRole("status").filter({ hasText: `now runs version ${version}` });
  await notice.getByRole("button", { name: "Reload" }).click();
  await notice.waitFor({ state: "detached" });
  await page.locator(".watch-list tbody tr:not(.dimmed)").first().waitFor();
  expect(await notice.count()).toBe(0);
});
