// @vitest-environment happy-dom
import { act, StrictMode, useState } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, it } from "vitest";
import {
  FloorcastProvider,
  useBook,
  useCandles,
  useConnection,
  usePrice,
  usePrices,
  useSession,
  useTrades,
} from "../../src/react.js";
import { BOOK, connect, pass, PRICE, trade, useManualTime } from "./kit.js";

useManualTime();

let root: Root;
let container: HTMLElement;
let choose: (symbol: string) => void;

beforeEach(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });
  container = document.createElement("div");
  root = createRoot(container);
});
afterEach(() => act(() => root.unmount()));

function Desk() {
  const [symbol, setSymbol] = useState("A");
  choose = setSymbol;
  const { state } = useConnection();
  const price = usePrice(symbol);
  const book = useBook(symbol);
  const { trades } = useTrades(symbol);
  const { bars } = useCandles(symbol, "1m");
  const { messages, session } = useSession("job:1");
  const parts = [state, price.data?.last, book.bids.length, trades.length, bars.length];
  return <p title={session.id}>{[...parts, messages.length].join(" ")}</p>;
}

async function render() {
  const { server, client } = connect();
  server.publish("PRICE:A", PRICE);
  server.publish("ORDERBOOK:A", BOOK);
  server.publish("TRADES:A", trade(1));
  server.publish("TRADES:A@1m", { bars: [] });
  await act(async () => {
    root.render(
      <StrictMode>
        <FloorcastProvider client={client}>
          <Desk />
        </FloorcastProvider>
      </StrictMode>,
    );
  });
  await act(() => pass());
  return server;
}

it("hooks show what the server sends", async () => {
  const server = await render();
  expect(container.textContent).toBe("online 1.01 1 1 0 0");
  server.publish("PRICE:A", { ...PRICE, last: "9" });
  server.say("job:1", "bob", { text: "hello" });
  await act(() => pass());
  expect(container.textContent).toBe("online 9 1 1 0 1");
});

it("hooks ask once in StrictMode, and let go when they unmount", async () => {
  const server = await render();
  const asked = server.requestsOf("subscribe").flatMap((each) => each.topics);
  expect(asked.sort()).toEqual(["ORDERBOOK:A", "PRICE:A", "TRADES:A", "TRADES:A@1m"]);
  expect(server.requestsOf("unsubscribe")).toEqual([]);
  expect(server.requestsOf("join")).toHaveLength(1);
  act(() => root.unmount());
  await act(() => pass());
  expect([...server.subscriptions]).toEqual([]);
  expect(server.requestsOf("leave")).toHaveLength(1);
  root = createRoot(container);
});

function List() {
  const { prices, status } = usePrices("B*");
  return <p>{[status, ...prices.map(({ symbol, data }) => `${symbol} ${data?.last}`)].join(" ")}</p>;
}

it("a hook lists the prices of a pattern, and a symbol that appears", async () => {
  const { server, client } = connect();
  server.publish("PRICE:BTC", PRICE);
  server.publish("PRICE:ETH", PRICE);
  const list = (
    <FloorcastProvider client={client}>
      <List />
    </FloorcastProvider>
  );
  await act(async () => root.render(<StrictMode>{list}</StrictMode>));
  await act(() => pass());
  expect(container.textContent).toBe("live BTC 1.01");
  server.publish("PRICE:BNB", { ...PRICE, last: "3" });
  await act(() => pass());
  expect(container.textContent).toBe("live BNB 3 BTC 1.01");
  expect(server.requestsOf("subscribe").map((each) => each.topics)).toEqual([["PRICE:B*"]]);
});

it("hooks change the topic with their arguments", async () => {
  const server = await render();
  server.publish("PRICE:B", { ...PRICE, last: "7" });
  act(() => choose("B"));
  await act(() => pass());
  expect(container.textContent).toBe("online 7 0 0 0 0");
  expect([...server.subscriptions.keys()].every((each) => /:B/.test(each))).toBe(true);
});

it("hooks without a provider say what is missing", () => {
  const report = console.error;
  console.error = () => {};
  expect(() => act(() => root.render(<Desk />))).toThrow(/FloorcastProvider/);
  console.error = report;
});
