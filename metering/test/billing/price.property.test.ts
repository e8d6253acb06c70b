/** What must hold of every price: fast-check prints the seed and the smallest case that fails. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type MeterKey, meterKeys } from "../../src/billing/catalog.ts";
import type { Price, Tier } from "../../src/billing/plan.ts";
import { amountOf, exactAmount, freeOf } from "../../src/billing/price.ts";
import { plus, type Rational, zero } from "../../src/billing/rational.ts";
import { tieredPrice, unitPrice } from "./plans.ts";

const big = (max: bigint, min = 0n) => fc.bigInt({ min, max });
const meter = fc.constantFrom<MeterKey>(...meterKeys);
const rate = fc.record({ micros: big(10n ** 9n), per: big(10n ** 7n, 1n) });
const free = fc.oneof(fc.constant(0n), big(10n ** 7n));
const quantity = big(10n ** 20n);

const tiers: fc.Arbitrary<Tier[]> = fc
  .tuple(fc.array(fc.tuple(big(10n ** 6n, 1n), rate), { maxLength: 5 }), rate)
  .map(([bounded, last]) => {
    let end = 0n;
    const ending = bounded.map(([width, each]) => {
      end += width;
      return { ...each, upTo: end };
    });
    return [...ending, last];
  });

const tiered = (model: "graduated" | "volume") =>
  fc.tuple(meter, tiers, free).map(([key, list, none]) => tieredPrice(model, key, list, none));
const byUnit = fc.tuple(meter, rate, free).map(([key, each, none]) => unitPrice(key, each, none));
const price: fc.Arbitrary<Price> = fc.oneof(byUnit, tiered("graduated"), tiered("volume"));

/** Quantities worth a look: anything, and those next to the tiers' ends. */
const near = (of: Price) => {
  const ends = of.model === "unit" ? [] : of.tiers.flatMap(({ upTo }) => (upTo === undefined ? [] : [upTo]));
  const marks = [0n, ...ends].map((end) => (end + of.free) * of.kind.perUnit);
  const around = fc
    .tuple(fc.constantFrom(...marks), fc.constantFrom(-1n, 0n, 1n))
    .map(([mark, step]) => (mark + step < 0n ? 0n : mark + step));
  return fc.oneof(quantity, around);
};
const priced = <P extends Price>(prices: fc.Arbitrary<P>) =>
  prices.chain((of) => fc.tuple(fc.constant(of), near(of), near(of)));

const compare = (a: Rational, b: Rational): bigint =>
  a.numerator * b.denominator - b.numerator * a.denominator;

describe("of every price", () => {
  test("what is free costs nothing, and no amount is negative", () => {
    fc.assert(
      fc.property(priced(price), ([of, base]) => {
        expect(amountOf(of, freeOf(of, base))).toBe(0n);
        expect(amountOf(of, of.free * of.kind.perUnit)).toBe(0n);
        expect(amountOf(of, base) >= 0n).toBe(true);
      }),
    );
  });

  test("the amount is the exact one, rounded once: never off by more than a half", () => {
    fc.assert(
      fc.property(priced(price), ([of, base]) => {
        const exact = exactAmount(of, base);
        const off = amountOf(of, base) * exact.denominator - exact.numerator;
        expect((off < 0n ? -off : off) * 2n <= exact.denominator).toBe(true);
      }),
    );
  });

  test("by unit and graduated, more never costs less", () => {
    fc.assert(
      fc.property(priced(fc.oneof(byUnit, tiered("graduated"))), ([of, a, b]) => {
        const [less, more] = a < b ? [a, b] : [b, a];
        expect(amountOf(of, less) <= amountOf(of, more)).toBe(true);
      }),
    );
  });
});

test("splitting a quantity changes a bill by unit by no more than the rounding of its parts", () => {
  const parts = fc.array(quantity, { minLength: 1, maxLength: 50 });
  fc.assert(
    fc.property(
      byUnit.map((of) => ({ ...of, free: 0n })),
      parts,
      (of, list) => {
        const whole = amountOf(
          of,
          list.reduce((sum, part) => sum + part, 0n),
        );
        const split = list.reduce((sum, part) => sum + amountOf(of, part), 0n);
        const off = whole > split ? whole - split : split - whole;
        // Half a micro for each part, and half for the whole.
        expect(off * 2n <= BigInt(list.length + 1)).toBe(true);
      },
    ),
  );
});

test("graduated is the sum of its tiers, each charged for what falls into it", () => {
  fc.assert(
    fc.property(priced(tiered("graduated")), ([of, base]) => {
      if (of.model === "unit") throw new Error("not graduated");
      const { perUnit } = of.kind;
      let from = 0n;
      let sum = zero;
      const charged = base - freeOf(of, base);
      for (const { upTo, ...each } of of.tiers) {
        const until = upTo === undefined || upTo * perUnit > charged ? charged : upTo * perUnit;
        if (until > from) sum = plus(sum, exactAmount(unitPriceLike(of, each), until - from));
        from = until > from ? until : from;
      }
      expect(compare(sum, exactAmount(of, base))).toBe(0n);
    }),
  );
});

test("volume jumps only at the ends of tiers: between two of them it is a price by unit", () => {
  fc.assert(
    fc.property(priced(tiered("volume")), ([of, base]) => {
      if (of.model === "unit") throw new Error("not volume");
      const charged = base - freeOf(of, base);
      const tier = of.tiers.find(({ upTo }) => upTo === undefined || charged <= upTo * of.kind.perUnit)!;
      expect(compare(exactAmount(of, base), exactAmount(unitPriceLike(of, tier), charged))).toBe(0n);
    }),
  );
});

test("with one tier, graduated and volume are a price by unit", () => {
  fc.assert(
    fc.property(meter, rate, free, quantity, (key, each, none, base) => {
      const amount = amountOf(unitPrice(key, each, none), base);
      expect(amountOf(tieredPrice("graduated", key, [each], none), base)).toBe(amount);
      expect(amountOf(tieredPrice("volume", key, [each], none), base)).toBe(amount);
    }),
  );
});

const unitPriceLike = ({ kind }: Price, { micros, per }: Tier): Price =>
  unitPrice(kind.name, { micros, per });
