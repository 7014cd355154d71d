/** The snippets of the documentation run, against the demo. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { afterEach, expect, it, vi } from "vitest";
import { token, urls } from "./kit.js";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const PAGES = ["client_js/README.md", "docs/javascript.md", "docs/market.md", "docs/protocol.md"];
/** Notices come when a backend sends one. */
const SILENT = /onNotice/;

afterEach(() => vi.restoreAllMocks());

interface Snippet {
  language: string;
  code: string;
}

function snippets(page: string): Snippet[] {
  const text = readFileSync(join(PACKAGE, "..", page), "utf8");
  const blocks = text.matchAll(/^```(ts|js)\n(.*?)^```$/gms);
  return [...blocks].map(([, language = "", code = ""]) => ({ language, code }));
}

/** What a snippet may use without saying where it comes from. */
function given({ language, code }: Snippet): string {
  const lines = [`const fetchToken = async () => ${JSON.stringify(token("ann"))};`];
  if (language === "js") {
    lines.push(
      `import { io } from "socket.io-client";`,
      `const [url, token] = [${JSON.stringify(urls()[2])}, await fetchToken()];`,
      `const subscribeAgain = () => console.log("subscribed");`,
    );
    if (!code.includes("const market")) {
      lines.push(`const market = io(url + "/market", { auth: { token } });`);
    }
  } else if (!code.includes("const client")) {
    lines.push(
      `import { Client as TheClient } from "@floorcast/client";`,
      `const client = new TheClient(${JSON.stringify(urls()[2])}, { token: fetchToken });`,
    );
  }
  return lines.join("\n");
}

it.each(PAGES)("the snippets of %s run", async (page) => {
  // Inside the package, where its dependencies are found.
  const folder = mkdtempSync(join(PACKAGE, ".snippets-"));
  try {
    const all = snippets(page);
    expect(all.length).toBeGreaterThan(0);
    for (const [index, snippet] of all.entries()) {
      const file = join(folder, `snippet${index + 1}.mjs`);
      const code = `${given(snippet)}\n${snippet.code}`
        .replace(/http:\/\/(localhost|127\.0\.0\.1):8000/g, urls()[2] as string)
        .replace(/token: "\.\.\."/, `token: ${JSON.stringify(token("ann"))}`);
      const { outputText } = ts.transpileModule(code, {
        compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
      });
      writeFileSync(file, outputText);
      const log = vi.spyOn(console, "log").mockReset();
      await import(/* @vite-ignore */ file);
      if (snippet.code.includes("console.log") && !SILENT.test(snippet.code)) {
        await vi.waitFor(() => expect(log, `${page}: ${snippet.code}`).toHaveBeenCalled(), 10_000);
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
