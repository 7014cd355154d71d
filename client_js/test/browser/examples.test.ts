import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, afterEach, expect, it } from "vitest";
import { closeAll, open, Proxy, token, urls } from "../server/kit.js";
import { Browser, REPOSITORY, serve } from "./kit.js";

const browser = new Browser();
const demo = () => urls()[2] as string;

afterEach(closeAll);
afterAll(() => browser.close());

it("the desk in React shows prices, a book, trades and a chat, and lives through a cut", async () => {
  const proxy = new Proxy(demo());
  const [page, url] = [await serve(join(REPOSITORY, "examples/react")), await proxy.start()];
  const desk = await browser.open(`${page.url}?url=${url}&token=${token("ann")}`);
  const rows = desk.locator(".watch tbody tr");
  await expect.poll(() => rows.count()).toBe(20);
  await expect.poll(() => desk.locator(".watch tbody tr:not(.dimmed)").count(), LONG).toBe(20);
  await desk.getByRole("button", { name: "ETHUSDT" }).click();
  await desk.locator(".ladder:not(.dimmed) .buy li").nth(9).waitFor();
  await desk.locator(".tape:not(.dimmed) li").first().waitFor();
  await desk.locator(".chart:not(.dimmed) svg rect").first().waitFor();

  const bob = open("bob", {}, demo()).session("desk:ETHUSDT");
  bob.open();
  await bob.send({ text: "hello from Bob" });
  await desk.getByText("hello from Bob").waitFor();
  await desk.getByLabel("Message").fill("hello from Ann");
  await desk.getByRole("button", { name: "Send" }).click();
  await expect.poll(() => bob.get().messages.at(-1)?.data["text"], LONG).toBe("hello from Ann");
  expect(browser.errors).toEqual([]);

  proxy.isDown = true;
  proxy.cut();
  await desk.locator(".banner.offline").waitFor();
  await expect.poll(() => desk.locator(".watch tbody tr.dimmed").count(), LONG).toBe(20);
  proxy.isDown = false;
  await expect.poll(() => desk.locator(".watch tbody tr:not(.dimmed)").count(), LONG).toBe(20);
  await expect.poll(() => desk.locator(".banner").count()).toBe(0);
  await desk.close();
  proxy.stop();
  await page.close();
});

const LONG = { timeout: 15_000 };

it("the plain page shows prices, served from another port", async () => {
  const html = readFileSync(join(REPOSITORY, "examples/plain.html"), "utf8");
  const [page, end] = await openPage(html, `?url=${demo()}&token=${token("ann")}`);
  await page.getByText("Live").waitFor();
  await page.locator("#row-ETHUSDT td:nth-child(2)", { hasText: /\d/ }).waitFor();
  await end();
});

it("the page of the README shows a price", async () => {
  const readme = readFileSync(join(REPOSITORY, "README.md"), "utf8");
  const [, html = ""] = /^```html\n(.*?)^```$/ms.exec(readme) ?? [];
  const filled = html.replace("http://127.0.0.1:8000", demo()).replace("TOKEN", token("ann"));
  const [page, end] = await openPage(filled);
  await page.getByText(/BTCUSDT \d+/).waitFor();
  await end();
});

/** Open a page of one file, from a port of its own. */
async function openPage(html: string, query = ""): Promise<[Page, () => Promise<void>]> {
  const pages = createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end(html);
  });
  await new Promise<void>((resolve) => pages.listen(0, "127.0.0.1", resolve));
  const { port } = pages.address() as AddressInfo;
  const library = join(REPOSITORY, "client_js/node_modules/socket.io-client/dist");
  const page = await browser.open(`http://127.0.0.1:${port}/${query}`, (each) =>
    // The library as the page's CDN has it: there is no network in tests.
    each.route("https://cdn.jsdelivr.net/**", (route) =>
      route.fulfill({ path: join(library, "socket.io.esm.min.js") }),
    ),
  );
  const end = async () => {
    await page.close();
    pages.close();
  };
  return [page, end];
}

it("the Node example prints prices and trades", async () => {
  const example = spawn(process.execPath, ["watch.mjs", "BTCUSDT"], {
    cwd: join(REPOSITORY, "examples/node"),
    env: { ...process.env, FLOORCAST_URL: demo(), FLOORCAST_TOKEN: token("ann") },
  });
  let printed = "";
  example.stdout.on("data", (chunk) => (printed += chunk));
  await expect.poll(() => printed, LONG).toMatch(/BTCUSDT live \d+\.\d+/);
  await expect.poll(() => printed, LONG).toMatch(/BTCUSDT (buy|sell) \d+\.\d+/);
  example.kill();
});
