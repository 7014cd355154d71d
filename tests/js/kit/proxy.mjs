// Cuts clients off from a server.
import { once } from "node:events";
import { connect, createServer } from "node:net";

// A proxy to the server; after cut() it refuses connections until restore().
export class Proxy {
  #upstream;
  #cut = false;
  #ends = new Set();
  #listener = createServer((client) => {
    if (this.#cut) return client.destroy();
    const server = connect(this.#upstream, "127.0.0.1");
    for (const [end, other] of [[client, server], [server, client]]) {
      this.#ends.add(end);
      end.on("error", () => {}).on("close", () => {
        this.#ends.delete(end);
        other.destroy();
      });
      end.pipe(other);
    }
  });

  constructor(url) {
    this.#upstream = Number(new URL(url).port);
  }

  async open() {
    this.#listener.listen(0, "127.0.0.1");
    await once(this.#listener, "listening");
    this.url = `http://127.0.0.1:${this.#listener.address().port}`;
  }

  cut() {
    this.#cut = true;
    this.#ends.forEach((end) => end.destroy());
  }

  restore() {
    this.#cut = false;
  }

  close() {
    this.cut();
    this.#listener.close();
  }
}
