import { defineConfig } from "vite";

export default defineConfig({
  // The package is linked from this repository, where it has a React of its own for its tests.
  resolve: { dedupe: ["react", "react-dom"] },
});
