/** Chromium, and pages that Vite builds and serves. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { build, preview } from "vite";

export const REPOSITORY = fileURLToPath(new URL("../../../", import.meta.url));

/** The flags keep Chromium from looking for hosts outside this machine. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export class Browser {
  readonly #profile = mkdtempSync(join(tmpdir(), "floorcast-"));
  #context: BrowserContext | null = null;
  /** What pages have logged as errors. */
  readonly errors: string[] = [];

  async open(url: string, prepare: (page: Page) => Promise<unknown> = async () => {}): Promise<Page> {
    this.#context ??= await chromium.launchPersistentContext(this.#profile, {
      executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
      headless: true,
      args: FLAGS,
      viewport: { width: 1280, height: 800 },
    });
    const page = await this.#context.newPage();
    page.setDefaultTimeout(15_000);
    page.on("pageerror", (error) => this.errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") {
        this.errors.push(message.text());
      }
    });
    await prepare(page);
    await page.goto(url);
    return page;
  }

  async close(): Promise<void> {
    await this.#context?.close();
    rmSync(this.#profile, { recursive: true, force: true });
  }
}

/** Build the page in a folder, and serve it on a port of its own. */
export async function serve(root: string): Promise<{ url: string; close(): Promise<void> }> {
  const outDir = mkdtempSync(join(tmpdir(), "floorcast-page-"));
  // Vitest sets it to `test`, and React would come with its checks for development.
  process.env["NODE_ENV"] = "production";
  await build({ root, logLevel: "error", build: { outDir, emptyOutDir: true } });
  const server = await preview({ root, logLevel: "error", build: { outDir }, preview: { port: 0 } });
  const url = server.resolvedUrls?.local[0] ?? "";
  return {
    url,
    async close() {
      await server.close();
      rmSync(outDir, { recursive: true, force: true });
    },
  };
}
