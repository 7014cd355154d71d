import { expect, it } from "vitest";
import { age, counted, decimal, direction, elapsed, padded, percent, places, short } from "../../src/kit/format.js";

it("keeps the digits of a price, with its thousands apart", () => {
  expect(["64251.950", "1234567", "0.00001", "-1234.5"].map(decimal)).toEqual([
    "64,251.950",
    "1,234,567",
    "0.00001",
    "-1,234.5",
  ]);
  expect(places("1.050")).toBe(3);
  expect(["1.5", "12", "0.125"].map((each) => padded(each, 2))).toEqual(["1.50", "12.00", "0.125"]);
  expect([0, 1, 2].map((each) => counted(each, "symbol"))).toEqual(["0 symbols", "1 symbol", "2 symbols"]);
  expect(places("12")).toBe(0);
});

it("shows ages and quantities in few characters", () => {
  expect([-5, 400, 9_940, 9_960, 99_600, 7_200_000].map(age)).toEqual([
    "0.0 s",
    "0.4 s",
    "9.9 s",
    "10 s",
    "2 min",
    "2 h",
  ]);
  expect([-5, 7_900, 99_900, 300_000].map(elapsed)).toEqual(["0 s", "7 s", "99 s", "5 min"]);
  expect([0.5, 12.34, 950, 12_340, 999_600, 2.5e9].map(short)).toEqual([
    "0.50",
    "12.3",
    "950",
    "12.3k",
    "1.00M",
    "2.50B",
  ]);
});

it("shows no sign for a change that is too small to show", () => {
  expect([0.01234, -0.001, 0.00001, -0.00001].map(percent)).toEqual([
    "+1.23%",
    "−0.10%",
    "0.00%",
    "0.00%",
  ]);
  expect([0.01, -0.001, 0.00001, NaN].map(direction)).toEqual(["up", "down", "", ""]);
});
