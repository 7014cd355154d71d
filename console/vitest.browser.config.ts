import { defineConfig } from "vitest/config";

// tests/js/test_console.py runs these: they need the server's Python.
export default defineConfig({
  test: { include: ["test/browser/*.test.ts"], testTimeout: 40_000, hookTimeout: 30_000 },
});
