/** Prices, on examples that can be done by hand. The rules behind them: price.property.test.ts. */
import { describe, expect, test } from "bun:test";
import { amountOf, freeOf } from "../../src/billing/price.ts";
import { decimalOf, roundHalfEven } from "../../src/billing/rational.ts";
import { tieredPrice, unitPrice } from "./plans.ts";

const tiers = [
  { upTo: 1_000n, micros: 10n, per: 1n },
  { upTo: 5_000n, micros: 5n, per: 1n },
  { micros: 1n, per: 1n },
];

describe("a price", () => {
  test("by unit is so many micros for each so many units, fractions included", () => {
    const hour = unitPrice("cpu-seconds", { micros: 36_000n, per: 3_600n });
    expect(amountOf(hour, 3_600_000_000n)).toBe(36_000n);
    expect(amountOf(hour, 1_500_000n)).toBe(15n);
    // 10.4 micros, and 10.6
    expect(amountOf(hour, 1_040_000n)).toBe(10n);
    expect(amountOf(hour, 1_060_000n)).toBe(11n);
  });

  test("of GiB-seconds counts a GiB as 2^30 bytes", () => {
    const gibHour = unitPrice("memory-gib-seconds", { micros: 3_600_000n, per: 3_600n });
    expect(amountOf(gibHour, 2n ** 30n)).toBe(1_000n);
    expect(amountOf(gibHour, 3n * 2n ** 29n)).toBe(1_500n);
  });

  test("does not charge what is free, and the tiers begin after it", () => {
    const price = tieredPrice("graduated", "requests", tiers, 100n);
    expect(freeOf(price, 60n)).toBe(60n);
    expect(amountOf(price, 100n)).toBe(0n);
    expect(amountOf(price, 101n)).toBe(10n);
    expect(amountOf(price, 1_101n)).toBe(10_005n);
  });

  test("graduated charges each unit by its own tier, volume all by the last one's", () => {
    const graduated = tieredPrice("graduated", "requests", tiers);
    const volume = tieredPrice("volume", "requests", tiers);
    for (const [used, byTier, byVolume] of [
      [1_000n, 10_000n, 10_000n],
      [1_001n, 10_005n, 5_005n],
      [5_000n, 30_000n, 25_000n],
      [6_000n, 31_000n, 6_000n],
    ] as const) {
      expect(amountOf(graduated, used)).toBe(byTier);
      expect(amountOf(volume, used)).toBe(byVolume);
    }
  });

  test("is exact where a float would not be", () => {
    const price = unitPrice("bytes-out", { micros: 1n, per: 1n });
    expect(amountOf(price, 2n ** 53n + 1n)).toBe(2n ** 53n + 1n);
    const third = unitPrice("requests", { micros: 1n, per: 3n });
    expect(amountOf(third, 3n * 10n ** 20n + 3n)).toBe(10n ** 20n + 1n);
  });
});

test("rounding takes the nearest whole number, of two the even one", () => {
  const half = (n: bigint) => roundHalfEven({ numerator: n, denominator: 2n });
  expect([1n, 3n, 5n, 7n].map(half)).toEqual([0n, 2n, 2n, 4n]);
  expect(roundHalfEven({ numerator: 5n, denominator: 3n })).toBe(2n);
});

test("decimals have no exponent, no trailing zeros and no more digits than asked for", () => {
  const shown = (numerator: bigint, denominator: bigint) => decimalOf({ numerator, denominator }, 10);
  expect(shown(3_600_250n, 1_000n)).toBe("3600.25");
  expect(shown(1n, 2n ** 30n)).toBe("0.0000000009");
  expect(shown(2n, 2n ** 30n)).toBe("0.0000000019");
  expect(shown(10n ** 30n, 1n)).toBe(`1${"0".repeat(30)}`);
  expect(decimalOf({ numerator: 7n, denominator: 2n }, 0)).toBe("4");
});
