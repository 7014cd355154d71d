/** Two hundred components, each with a price of its own, and how many are live. */
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Client } from "../../src/index.js";
import { FloorcastProvider, usePrice } from "../../src/react.js";

const params = new URLSearchParams(location.search);
const client = new Client(params.get("url") ?? "", { token: params.get("token") ?? "" });
const symbols = (params.get("symbols") ?? "").split(",");
const figures = { renders: 0, updates: 0, live: 0 };
Object.assign(window, { figures });

function Price({ symbol }: { symbol: string }) {
  const { data, status } = usePrice(symbol);
  figures.renders += 1;
  return (
    <div className={status}>
      {symbol} <b>{data?.last}</b> {data?.bid} / {data?.ask}
    </div>
  );
}

for (const symbol of symbols) {
  client.market.subscribe(`PRICE:${symbol}`, { message: () => void (figures.updates += 1) });
}
function count() {
  figures.live = document.querySelectorAll(".live").length;
  requestAnimationFrame(count);
}
count();

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <FloorcastProvider client={client}>
      {symbols.map((symbol) => (
        <Price key={symbol} symbol={symbol} />
      ))}
    </FloorcastProvider>
  </StrictMode>,
);
