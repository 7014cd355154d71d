import { afterAll, beforeAll, expect, it } from "vitest";
import { Browser, Demo, type Page } from "./kit.js";

const browser = new Browser();
const demo = new Demo();
let page: Page;

beforeAll(async () => {
  await demo.start();
  page = await browser.open(demo.url);
});

afterAll(async () => {
  await browser.close();
  await demo.kill();
});

it("connects with the token of the demo, and the policy of the page refuses nothing", async () => {
  await page.locator(".connection.online").waitFor();
  await page.getByText("BTCUSDT").first().waitFor();
  for (const title of ["Try", "Operate", "Watch"]) {
    await page.getByRole("link", { name: title }).click();
    await page.getByRole("region", { name: title }).waitFor();
  }
  expect(browser.errors).toEqual([]);
});
