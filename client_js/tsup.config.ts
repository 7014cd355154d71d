import { defineConfig } from "tsup";

export default defineConfig({
  entry: ["src/index.ts", "src/contract.ts", "src/react.ts", "src/testing.ts"],
  format: "esm",
  target: "es2022",
  dts: true,
  clean: true,
  treeshake: true,
});
