/** What the place Operate shows of others, and does to them. */
import { Client } from "@floorcast/client";
import { expect, it } from "vitest";
import { type Browser, type Demo, LONG, type Page } from "./kit.js";

export function testOperate(demo: Demo, browser: Browser, page: () => Page): void {
  it("shows a connection with its topics, and ends it once that is confirmed", async () => {
    const client = new Client(demo.url, { token: demo.tokens["trader"] as string });
    client.market.subscribe("PRICE:ETHUSDT", { intervalMs: 250 });
    await page().getByRole("link", { name: "Operate" }).click();
    const operate = page().getByRole("region", { name: "Operate", exact: true });
    await operate.getByLabel("User of the connections").fill("trader");
    await operate.getByLabel("User of the connections").press("Enter");
    const row = operate.getByRole("row", { name: /^trader / });
    await row.getByTitle("PRICE:ETHUSDT (250 ms)").waitFor();
    await row.getByRole("button", { name: "End" }).click();
    await page().getByRole("button", { name: "Cancel" }).click();
    expect(client.connection.get().state).toBe("online");
    await row.getByRole("button", { name: "End" }).click();
    await page().getByRole("button", { name: "End it" }).click();
    await operate.getByText("No connection matches.").waitFor();
    await expect.poll(() => client.connection.get().state, LONG).toBe("refused");
    client.close();
    await operate.getByLabel("User of the connections").fill("");
    await operate.getByLabel("User of the connections").press("Enter");
  });

  it("shows topics, sessions with their messages, feeds, refusals and events", async () => {
    const client = new Client(demo.url, { token: demo.tokens["trader"] as string });
    const session = client.session("job:7");
    client.market.subscribe("PRICE:SOLUSDT", {});
    session.open();
    await session.send({ text: "for the log" });
    const tab = (name: string) => page().getByRole("tab", { name }).click();
    await tab("Topics");
    const rate = page().getByRole("row", { name: /^PRICE:SOLUSDT/ }).locator("td").nth(2);
    await expect.poll(async () => Number(await rate.textContent()), LONG).toBeGreaterThan(2);
    await tab("Sessions");
    await page().getByRole("button", { name: "Open job:7" }).click();
    await page().getByText("for the log").waitFor();
    await page().getByRole("button", { name: "Kick trader" }).click();
    await page().getByRole("button", { name: "Kick", exact: true }).click();
    await expect.poll(() => session.get().reason, LONG).toBe("kicked");
    await expect(client.market.publish({ topic: "PRICE:X", data: {} })).rejects.toThrow();
    await tab("Feeds and refusals");
    await page().getByRole("row", { name: /^simulated live/ }).waitFor();
    await page().getByRole("row", { name: /^auth.forbidden/ }).waitFor();
    await tab("Events");
    await page().getByText("Kicked trader out of job:7").first().waitFor();
    await page().getByText(/refused: auth.forbidden/).waitFor();
    client.close();
  });

  it("is not there for a token without the scope admin", async () => {
    const token = demo.tokens["trader"];
    const other = await browser.open("about:blank", (each) =>
      each.route("**/console/session", (route) => route.fulfill({ json: { token, version: "1" } })),
    );
    await other.goto(`${demo.url}#operate`);
    await other.locator(".connection.online", { hasText: "trader" }).waitFor();
    expect(await other.getByRole("link", { name: "Operate" }).count()).toBe(0);
    await other.getByRole("region", { name: "Watch", exact: true }).waitFor();
    await other.close();
  });
}
