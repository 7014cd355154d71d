/** Real servers, a proxy that can cut and move connections, and tokens. */
import { createHmac } from "node:crypto";
import { connect, createServer, type Server, type Socket } from "node:net";
import { Client, type ClientOptions, type Readable } from "../../src/index.js";

const clients: Client[] = [];

export function urls(): string[] {
  return JSON.parse(process.env["FLOORCAST_URLS"] ?? "[]") as string[];
}

export function token(user: string, seconds = 600): string {
  const now = Math.floor(Date.now() / 1000);
  const scope = "market:read market:publish session:join session:moderate";
  const claims = { sub: user, aud: "floorcast", iat: now, exp: now + seconds, scope };
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  const secret = process.env["FLOORCAST_SECRET"] ?? "";
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** A client that ends with its test: see `closeAll`. */
export function open(user: string, options: ClientOptions = {}, url = urls()[0] as string): Client {
  const client = new Client(url, { token: () => token(user), ...options });
  clients.push(client);
  return client;
}

export function closeAll(): void {
  clients.splice(0).forEach((each) => each.close());
}

/** Wait until a value satisfies a condition; fails with the value after ten seconds. */
export function until<T>(store: Readable<T>, holds: (value: T) => boolean): Promise<T> {
  return new Promise((resolve, reject) => {
    const end = (settle: () => void) => {
      clearTimeout(timer);
      stop();
      settle();
    };
    const check = () => {
      const value = store.get();
      if (holds(value)) {
        end(() => resolve(value));
      }
    };
    const timer = setTimeout(() => {
      end(() => reject(new Error(`it stays ${JSON.stringify(store.get())}`)));
    }, 10_000);
    const stop = store.subscribe(check);
    setImmediate(check);
  });
}

export class Proxy {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  #target: string;
  isDown = false;

  constructor(target: string) {
    this.#target = target;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** Cut all connections; the next ones lead to `target`. */
  cut(target = this.#target): void {
    this.#target = target;
    this.#sockets.forEach((each) => each.destroy());
  }

  stop(): void {
    this.cut();
    this.#server.close();
  }

  #accept(socket: Socket): void {
    if (this.isDown) {
      socket.destroy();
      return;
    }
    const { hostname, port } = new URL(this.#target);
    const upstream = connect(Number(port), hostname);
    for (const each of [socket, upstream]) {
      this.#sockets.add(each);
      each.on("error", () => {});
      each.on("close", () => {
        this.#sockets.delete(each);
        socket.destroy();
        upstream.destroy();
      });
    }
    socket.pipe(upstream);
    upstream.pipe(socket);
  }
}
