/** What the place Try shows, and what others get of it. */
import { Client } from "@floorcast/client";
import { expect, it } from "vitest";
import { type Demo, LONG, type Page } from "./kit.js";

export function testTry(demo: Demo, page: () => Page): void {
  const part = (name: string) => page().getByRole("region", { name, exact: true });
  const numbers = async (selector: string) =>
    (await page().locator(selector).allTextContents()).map(Number);

  it("replays what a line has missed that was cut, and loses nothing", async () => {
    await page().getByRole("link", { name: "Try" }).click();
    const cut = part("Cut my line");
    await cut.getByRole("button", { name: "3 s", exact: true }).click();
    // The line has to be there before it is cut.
    await expect.poll(async () => (await numbers(".reading tbody td"))[5], LONG).toBeGreaterThan(2);
    await cut.getByRole("button", { name: "Cut my line" }).click();
    await cut.getByText("Each trade came once, in order.").waitFor();
    const [missed = 0, replayed, lost] = await numbers(".outcome.good b");
    expect(missed).toBeGreaterThan(5);
    expect([replayed, lost]).toEqual([missed, 0]);
    expect(await page().locator(".connection.online").count()).toBe(1);
  });

  it("merges prices for a slow reader, and no trades", async () => {
    await expect.poll(async () => (await numbers(".reading tbody td"))[2], LONG).toBeGreaterThan(10);
    const [published = 0, read = 0, merged = 0] = await numbers(".reading tbody tr:nth-child(1) td");
    expect(published).toBe(read + merged);
    const trades = await numbers(".reading tbody tr:nth-child(2) td");
    expect(trades.slice(0, 3)).toEqual([trades[0], trades[0], 0]);
    await part("Slow reader").getByText("Code").click();
    await part("Slow reader").getByRole("button", { name: "curl" }).click();
    const code = await part("Slow reader").locator("code").textContent();
    const example = /^curl "(\S+)" \\\n {2}-H "Authorization: (Bearer \S+)"$/.exec(code ?? "");
    const headers = { Authorization: example?.[2] ?? "" };
    const answer = await fetch(example?.[1] ?? "", { headers });
    expect(await answer.json()).toMatchObject({ topic: "PRICE:BTCUSDT", state: "LIVE" });
  });

  it("shows who is in a room and who types, and its messages to all", async () => {
    const client = new Client(demo.url, { token: demo.tokens["trader"] as string });
    const session = client.session("room:try");
    session.open();
    const room = part("Room");
    await room.getByText("trader", { exact: true }).waitFor();
    await room.getByText("ops (you)").waitFor();
    await session.send({ text: "hello from the desk" });
    await room.getByText("hello from the desk").waitFor();
    session.typing();
    await room.getByText("trader types").waitFor();
    await room.getByRole("textbox", { name: "Message", exact: true }).fill("welcome");
    await room.getByRole("button", { name: "Send" }).click();
    await expect.poll(() => session.get().messages.at(-1), LONG).toMatchObject({
      user_id: "ops",
      data: { text: "welcome" },
    });
    client.close();
    const people = room.getByRole("list", { name: "In this room" }).getByText("trader");
    await people.waitFor({ state: "detached" });
  });

  it("publishes by hand, and a new symbol appears in Watch", async () => {
    const publish = part("Publish by hand");
    await publish.getByLabel("Symbol").fill("HANDMADE");
    await publish.getByRole("button", { name: "Publish", exact: true }).click();
    await publish.getByText("position 1", { exact: true }).waitFor();
    await publish.getByLabel("Data, as JSON").fill('{"bid": "1"}');
    await publish.getByRole("button", { name: "Publish", exact: true }).click();
    await publish.getByText("request.invalid").waitFor();
    await publish.getByRole("link", { name: "Watch" }).click();
    await page().locator('tr[data-symbol="HANDMADE"] td.last', { hasText: "1.01" }).waitFor();
  });
}
