import { beforeEach, expect, it, vi } from "vitest";
import { Alerts } from "../../src/watch/alerts.js";
import { SAMPLE_MS, Samples } from "../../src/watch/samples.js";
import { stepsOf, tickOf } from "../../src/watch/steps.js";

const kept = new Map<string, string>();

beforeEach(() => {
  kept.clear();
  vi.stubGlobal("localStorage", {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => kept.set(name, value),
  });
});

it("reports a level once, when a price reaches or crosses it from either side", () => {
  const alerts = new Alerts();
  alerts.add("A", "10");
  alerts.add("A", "12.5");
  alerts.add("A", "9");
  expect(alerts.of("A")).toEqual(["12.5", "10", "9"]);
  expect(alerts.crossed("A", 11, 11.9)).toEqual([]);
  expect(alerts.crossed("A", 11, 9)).toEqual(["10", "9"]);
  expect(alerts.crossed("A", 9, 11)).toEqual([]);
  expect(alerts.crossed("A", 11, 12.5)).toEqual(["12.5"]);
  expect(alerts.has("A")).toBe(false);
});

it("does not report a level at the first price, or while the price stands at it", () => {
  const alerts = new Alerts();
  alerts.add("A", "10");
  expect(alerts.crossed("A", NaN, 11)).toEqual([]);
  expect(alerts.crossed("A", 10, 10)).toEqual([]);
  expect(alerts.crossed("A", 10, 11)).toEqual([]);
  expect(alerts.crossed("B", 9, 11)).toEqual([]);
});

it("keeps alerts for the next visit", () => {
  new Alerts().add("A", "10");
  const later = new Alerts();
  expect(later.of("A")).toEqual(["10"]);
  later.remove("A", "10");
  expect(new Alerts().of("A")).toEqual([]);
});

it("samples the last price of each step, also of steps in which nothing was traded", () => {
  const samples = new Samples();
  samples.add(0, 1);
  samples.add(SAMPLE_MS - 1, 2);
  samples.add(SAMPLE_MS * 3, 3);
  samples.add(SAMPLE_MS * 2, 9);
  expect(samples.values).toEqual([2, 2, 2, 9]);
  for (let step = 4; step < 100; step += 1) {
    samples.add(SAMPLE_MS * step, step);
  }
  expect(samples.values).toHaveLength(60);
  expect(samples.values[0]).toBe(40);
});

it("puts the past in front of what it has sampled itself", () => {
  const samples = new Samples();
  samples.add(SAMPLE_MS * 10, 5);
  samples.add(SAMPLE_MS * 11, 6);
  samples.seed([
    [SAMPLE_MS * 7, 1],
    [SAMPLE_MS * 9, 2],
    [SAMPLE_MS * 10, 99],
    [SAMPLE_MS * 11, 99],
  ]);
  expect(samples.values).toEqual([1, 1, 2, 5, 6]);
});

it("offers the steps above the tick size that leave some groups, as the server spells them", () => {
  expect(stepsOf("0.01", 64_000)).toEqual(
    ["0.05", "0.1", "0.5", "1", "5", "10", "50", "100", "500", "1000"],
  );
  expect(stepsOf("0.00001", 1.08)).toEqual(
    ["0.00005", "0.0001", "0.0005", "0.001", "0.005", "0.01", "0.05"],
  );
  expect(stepsOf("0.25", 5_000)).toEqual(["0.5", "1", "5", "10", "50", "100"]);
  expect([stepsOf("0.01", 0.5), stepsOf("0.01", NaN), stepsOf("", 1)]).toEqual([[], [], []]);
  expect(["1.050", "12"].map(tickOf)).toEqual(["0.001", "1"]);
});
