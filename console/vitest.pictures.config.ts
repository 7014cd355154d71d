import { defineConfig } from "vitest/config";

// They need the server's Python: FLOORCAST_PYTHON=.../bin/python npm run pictures
export default defineConfig({
  test: { include: ["pictures/*.pictures.ts"], testTimeout: 180_000, hookTimeout: 30_000 },
});
