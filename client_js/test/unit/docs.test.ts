/** The snippets of the documentation compile. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { expect, it } from "vitest";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const PAGES = ["docs/javascript.md", "client_js/README.md"];
/** What a snippet may use without saying where it comes from. */
const GIVEN = `
  declare function fetchToken(): Promise<string>;
  declare const client: import("@floorcast/client").Client;
`;

function snippets(page: string): string[] {
  const text = readFileSync(join(PACKAGE, "..", page), "utf8");
  return [...text.matchAll(/^```tsx?\n(.*?)^```$/gms)].map((found) => found[1] as string);
}

it.each(PAGES)("the snippets of %s compile", (page) => {
  // Inside the package, where its dependencies are found.
  const folder = mkdtempSync(join(PACKAGE, ".snippets-"));
  try {
    const files = snippets(page).map((snippet, index) => {
      const file = join(folder, `snippet${index + 1}.tsx`);
      writeFileSync(file, `${snippet}\nexport {};\n`);
      return file;
    });
    expect(files.length).toBeGreaterThan(0);
    const given = join(folder, "given.d.ts");
    writeFileSync(given, GIVEN);
    expect(problems([given, ...files])).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

function problems(files: string[]): string[] {
  const { config } = ts.readConfigFile(join(PACKAGE, "tsconfig.json"), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, PACKAGE);
  const paths = {
    "@floorcast/client": [join(PACKAGE, "src/index.ts")],
    "@floorcast/client/*": [join(PACKAGE, "src/*.ts")],
  };
  const program = ts.createProgram(files, { ...options, paths, noUnusedLocals: false });
  return ts
    .getPreEmitDiagnostics(program)
    .map((each) => `${each.file?.fileName}: ${ts.flattenDiagnosticMessageText(each.messageText, "\n")}`);
}
