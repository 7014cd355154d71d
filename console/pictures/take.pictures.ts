/** Takes the pictures of the documents: `npm run pictures`, and look at each before it is committed. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Client } from "@floorcast/client";
import { afterAll, beforeAll, it } from "vitest";
import { REPOSITORY } from "../../client_js/test/browser/kit.js";
import { Browser, Demo, type Page } from "../test/browser/kit.js";

const FOLDER = process.env["PICTURES"] ?? join(REPOSITORY, "docs/pictures");
const DESK = { width: 1440, height: 800 };
const PHONE = { width: 390, height: 844 };

/** More than the four of the demo: the README names the picture's flag. */
const SYMBOLS =
  "ADAUSDT,ATOMUSDT,AUDUSD,AVAXUSDT,BNBUSDT,BTCUSDT,DOGEUSDT,DOTUSDT,ETHUSDT,EURUSD,GBPUSD,LINKUSDT,LTCUSDT,NEARUSDT,SOLUSDT,USDJPY,XAUUSD,XRPUSDT";

const browser = new Browser();
const demo = new Demo();
let page: Page;

const link = (title: string) => page.locator(".bar").getByRole("link", { name: title }).click();
const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
const client = (user: string) => new Client(demo.url, { token: demo.tokens[user] as string });

async function take(name: string, colorScheme: "dark" | "light", of = page): Promise<void> {
  await of.emulateMedia({ colorScheme });
  await of.mouse.move(700, 20);
  await of.evaluate("document.activeElement.blur()");
  await pause(3);
  await of.screenshot({ path: join(FOLDER, `${name}.png`) });
}

beforeAll(async () => {
  mkdirSync(FOLDER, { recursive: true });
  await demo.start({ FLOORCAST_FEED__SYMBOLS: SYMBOLS, FLOORCAST_FEED__RATE: "180" });
  page = await browser.open(demo.url);
  await page.setViewportSize(DESK);
});

afterAll(async () => {
  await browser.close();
  await demo.kill();
});

it("Try, after a cut", async () => {
  await link("Try");
  const other = client("trader");
  const session = other.session("room:try");
  session.open();
  await session.send({ text: "BTC bid is thin above 64,250" });
  const room = page.getByRole("region", { name: "Room" });
  await room.getByRole("textbox", { name: "Message", exact: true }).fill("seen, pulling the ask");
  await room.getByRole("button", { name: "Send" }).click();
  await pause(18);
  await page.getByRole("button", { name: "Cut my line" }).click();
  await page.getByText("Each trade came once, in order.").waitFor();
  await page.getByRole("button", { name: "Publish", exact: true }).click();
  session.typing();
  await take("console-try", "light");
  other.close();
});

it("Operate, with some clients", async () => {
  const clients = ["trader", "trader", "publisher", "moderator"].map(client);
  const [fast, slow, publisher, moderator] = clients.map(({ market }) => market);
  fast?.subscribe("PRICE:*", {});
  fast?.subscribe("ORDERBOOK:BTCUSDT@10", {});
  slow?.subscribe("PRICE:*", { intervalMs: 1000 });
  publisher?.subscribe("TRADES:*", {});
  moderator?.subscribe("PRICE:BTCUSDT", {});
  clients[3]?.session("room:desk").open();
  await link("Operate");
  await pause(100);
  await take("console-operate", "dark");
  clients.forEach((each) => each.close());
});

it("Watch: at a desk, on a phone, and while the server is away", async () => {
  await link("Watch");
  await page.locator('tr[data-symbol="BTCUSDT"]').click();
  await page.getByRole("button", { name: "1s", exact: true }).click();
  await pause(4);
  await take("console-watch", "dark");
  const phone = await browser.open("about:blank", (each) => each.setViewportSize(PHONE));
  await phone.goto(demo.url);
  await phone.locator(".ladder .badge.good").waitFor();
  await phone.locator('tr[data-symbol="BTCUSDT"]').click();
  await take("console-phone", "dark", phone);
  await phone.close();
  await demo.kill();
  await page.locator(".connection.offline").waitFor();
  await pause(6);
  await take("console-offline", "dark");
});
