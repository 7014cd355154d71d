import { defineConfig } from "vitest/config";

// tests/js/test_client.py starts the servers, and then runs these.
export default defineConfig({
  test: {
    include: ["test/{browser,server}/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 20_000,
  },
});
