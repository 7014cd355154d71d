/** The demo as a process, and pages of its console in Chromium. */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { expect } from "vitest";
import { Browser, REPOSITORY } from "../../../client_js/test/browser/kit.js";

export type Page = Awaited<ReturnType<Browser["open"]>>;
export const LONG = { timeout: 15_000 };

export class Demo {
  url = "";
  tokens: Record<string, string> = {};
  #process: ChildProcess | null = null;
  #port = "0";

  /** Start the demo; again at the same port after `kill`. */
  async start(environ: Record<string, string> = {}): Promise<void> {
    // The server refuses settings that it does not know.
    const { FLOORCAST_PYTHON: python = "python", ...inherited } = process.env;
    const flags = ["-m", "server.cli", "serve", "--demo", "--port", this.#port];
    const started = spawn(python, flags, {
      cwd: REPOSITORY,
      env: { ...inherited, ...environ },
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#process = started;
    for await (const line of createInterface({ input: started.stdout })) {
      const [, user, token] = /^token of (\w+): (\S+)$/.exec(line) ?? [];
      if (user !== undefined && token !== undefined) {
        this.tokens[user] = token;
      }
      const url = /^listening on (http:\S+)$/.exec(line)?.[1];
      if (url !== undefined) {
        this.url = url;
        this.#port = new URL(url).port;
        return;
      }
    }
    throw new Error("the demo does not start");
  }

  kill(): Promise<void> {
    const ended = this.#process;
    this.#process = null;
    return new Promise((resolve) => {
      if (ended === null || ended.exitCode !== null) {
        resolve();
      } else {
        ended.once("exit", () => resolve());
        ended.kill("SIGKILL");
      }
    });
  }

  async publish(...messages: object[]): Promise<void> {
    const response = await fetch(`${this.url}/api/v1/publish`, {
      method: "POST",
      headers: {
        Authorization: `Bearer ${this.tokens["ops"]}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify({ messages }),
    });
    expect(response.status).toBe(200);
  }
}

export { Browser };
