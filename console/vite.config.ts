import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

/** The licenses of the packages that are inside the bundle, as they ask for. */
function licenses(): Plugin {
  return {
    name: "licenses",
    generateBundle(_, bundle) {
      const folders = new Map<string, string>();
      for (const chunk of Object.values(bundle)) {
        for (const id of chunk.type === "chunk" ? chunk.moduleIds : []) {
          const found = /^.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(id);
          if (found?.[1] !== undefined) {
            folders.set(found[1], found[0]);
          }
        }
      }
      const texts = [...folders].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, folder]) => {
        const license = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
        const text = license === undefined ? "" : readFileSync(join(folder, license), "utf8");
        return `${name}\n\n${text.trim()}\n`;
      });
      const source = texts.join(`\n${"-".repeat(80)}\n\n`);
      this.emitFile({ type: "asset", fileName: "console/licenses.txt", source });
    },
  };
}

const here = dirname(fileURLToPath(import.meta.url));

export default defineConfig({
  // The server may be mounted below a path.
  base: "./",
  // server/web/console.py puts a fresh nonce in its place for each response.
  html: { cspNonce: "CSP_NONCE" },
  plugins: [licenses()],
  build: {
    target: "es2022",
    cssTarget: "chrome123",
    modulePreload: false,
    outDir: join(here, "../server/web/static"),
    emptyOutDir: true,
    rolldownOptions: {
      output: {
        // Names without a hash: the server revalidates them, and a commit shows what changed.
        entryFileNames: "console/console.js",
        assetFileNames: "console/console[extname]",
        codeSplitting: false,
      },
    },
  },
});
