import type { Bar, CandleInterval, Level, LiveStatus } from "@floorcast/client";
import {
  useBook,
  useCandles,
  useClient,
  useConnection,
  usePrice,
  useSession,
  useTrades,
} from "@floorcast/client/react";
import { type FormEvent, useEffect, useState } from "react";

const KNOWN = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD"];
const OTHERS = Array.from({ length: 16 }, (_, index) => `SYM${String(index + 5).padStart(3, "0")}USDT`);
const SYMBOLS = [...KNOWN, ...OTHERS];
const INTERVALS: CandleInterval[] = ["1s", "5s", "1m", "5m"];

export function Desk() {
  const [symbol, setSymbol] = useState("BTCUSDT");
  return (
    <>
      <Banner />
      <main>
        <WatchList chosen={symbol} choose={setSymbol} />
        <Chart symbol={symbol} key={`chart ${symbol}`} />
        <Ladder symbol={symbol} key={`ladder ${symbol}`} />
        <Tape symbol={symbol} key={`tape ${symbol}`} />
        <Chat id={`desk:${symbol}`} key={`chat ${symbol}`} />
      </main>
    </>
  );
}

function Banner() {
  const client = useClient();
  const { state, error, attempt, isDraining } = useConnection();
  if (state === "online" && !isDraining) {
    return null;
  }
  const texts = {
    idle: "Not connected.",
    connecting: "Connecting…",
    online: "The server restarts.",
    offline: `Offline: ${error?.message ?? ""}. Attempt ${attempt}.`,
    refused: `Refused: ${error?.message ?? ""}`,
    closed: "Closed.",
  };
  return (
    <div role="status" className={`banner ${state}`}>
      {texts[state]}
      {state === "refused" && <button onClick={() => client.reconnect()}>Try again</button>}
    </div>
  );
}

// --- watch list

interface WatchListProps {
  chosen: string;
  choose: (symbol: string) => void;
}

function WatchList({ chosen, choose }: WatchListProps) {
  return (
    <section className="watch">
      <h2>Watch list</h2>
      <table>
        <thead>
          <tr>
            <th>Symbol</th>
            <th>Last</th>
            <th>Bid</th>
            <th>Ask</th>
          </tr>
        </thead>
        <tbody>
          {SYMBOLS.map((symbol) => (
            <WatchRow key={symbol} symbol={symbol} isChosen={symbol === chosen} choose={choose} />
          ))}
        </tbody>
      </table>
    </section>
  );
}

interface WatchRowProps {
  symbol: string;
  isChosen: boolean;
  choose: (symbol: string) => void;
}

function WatchRow({ symbol, isChosen, choose }: WatchRowProps) {
  const { data, status } = usePrice(symbol, { intervalMs: 100 });
  return (
    <tr aria-selected={isChosen} className={dimmed(status)} onClick={() => choose(symbol)}>
      <th>
        <button onClick={() => choose(symbol)}>{symbol}</button>
      </th>
      <td>{data?.last ?? "–"}</td>
      <td>{data?.bid ?? "–"}</td>
      <td>{data?.ask ?? "–"}</td>
    </tr>
  );
}

// --- chart

function Chart({ symbol }: { symbol: string }) {
  const [interval, setInterval] = useState<CandleInterval>("5s");
  const { bars, status } = useCandles(symbol, interval, { limit: 80 });
  return (
    <section className={`chart ${dimmed(status)}`}>
      <h2>
        {symbol}
        {INTERVALS.map((each) => (
          <button key={each} aria-pressed={each === interval} onClick={() => setInterval(each)}>
            {each}
          </button>
        ))}
      </h2>
      <CandleChart bars={bars} />
    </section>
  );
}

const WIDTH = 640;
const HEIGHT = 240;

function CandleChart({ bars }: { bars: readonly Bar[] }) {
  const low = Math.min(...bars.map((bar) => Number(bar.l)));
  const high = Math.max(...bars.map((bar) => Number(bar.h)));
  const y = (price: string) => HEIGHT - ((Number(price) - low) / (high - low || 1)) * HEIGHT;
  const step = WIDTH / Math.max(bars.length, 20);
  return (
    <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${bars.length} candles`}>
      {bars.map((bar, index) => {
        const top = Math.min(y(bar.o), y(bar.c));
        const body = Math.max(1, Math.abs(y(bar.o) - y(bar.c)));
        const x = index * step;
        return (
          <g key={bar.t} className={Number(bar.c) < Number(bar.o) ? "down" : "up"}>
            <line x1={x + step / 2} x2={x + step / 2} y1={y(bar.h)} y2={y(bar.l)} />
            <rect x={x + step * 0.15} width={step * 0.7} y={top} height={body} />
          </g>
        );
      })}
    </svg>
  );
}

// --- order book

function Ladder({ symbol }: { symbol: string }) {
  const { bids, asks, status } = useBook(symbol, { intervalMs: 100 });
  const most = Math.max(...[...bids.slice(0, 10), ...asks.slice(0, 10)].map(quantityOf), 0);
  return (
    <section className={`ladder ${dimmed(status)}`}>
      <h2>
        Book <small>{status}</small>
      </h2>
      <LadderSide levels={asks.slice(0, 10).reverse()} side="sell" most={most} />
      <LadderSide levels={bids.slice(0, 10)} side="buy" most={most} />
    </section>
  );
}

interface LadderSideProps {
  levels: Level[];
  side: "buy" | "sell";
  most: number;
}

function LadderSide({ levels, side, most }: LadderSideProps) {
  return (
    <ol className={side}>
      {levels.map((level) => (
        <li key={level[0]} style={{ backgroundSize: `${(100 * quantityOf(level)) / most}% 100%` }}>
          <span>{level[0]}</span>
          <span>{level[1]}</span>
        </li>
      ))}
    </ol>
  );
}

function quantityOf(level: Level): number {
  return Number(level[1]);
}

// --- tape

function Tape({ symbol }: { symbol: string }) {
  const { trades, gaps, status } = useTrades(symbol, { last: 30 });
  return (
    <section className={`tape ${dimmed(status)}`}>
      <h2>Trades</h2>
      {gaps.length > 0 && <p role="alert">Some trades could not be fetched.</p>}
      <ol>
        {trades.map(({ id, side, price, qty, ts }) => (
          <li key={id} className={side}>
            <time>{new Date(ts).toLocaleTimeString()}</time>
            <span>{price}</span>
            <span>{qty}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

// --- chat

function Chat({ id }: { id: string }) {
  const { session, messages, pending, participants, typing, status, reason, error } = useSession(id);
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => setProblem(error?.message ?? reason), [error, reason]);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setText("");
    session.send({ text }).catch((refusal: Error) => setProblem(refusal.message));
  };
  return (
    <section className="chat">
      <h2>
        Chat <small>{status === "joined" ? `${participants.length} here` : status}</small>
      </h2>
      <ol aria-live="polite">
        {messages.map((message) => (
          <li key={message.seq}>
            <b>{message.user_id}</b> {String(message.data["text"])}
          </li>
        ))}
        {pending.map((message) => (
          <li key={message.id} className="dimmed">
            {String(message.data["text"])}
          </li>
        ))}
      </ol>
      <p>{typing.length > 0 ? `${typing.join(", ")} is typing…` : "\u00a0"}</p>
      {problem !== null && <p role="alert">{problem}</p>}
      <form onSubmit={submit}>
        <input
          aria-label="Message"
          value={text}
          onChange={(event) => {
            setText(event.target.value);
            session.typing();
          }}
        />
        <button disabled={text === ""}>Send</button>
      </form>
    </section>
  );
}

function dimmed(status: LiveStatus): string {
  return status === "live" ? "" : "dimmed";
}
