/**
 * What a quantity costs. Exact to the end, then rounded once per line of the invoice, half to even: amounts in between
 * (each tier, each hour) are never rounded, and half to even favours neither side over many lines. Pure.
 */
import type { Price, Rate, Tier } from "./plan.ts";
import { plus, type Rational, roundHalfEven, zero } from "./rational.ts";

/**
 * In millionths of the currency's unit.
 * @param base used, in the meter's base units
 */
export function amountOf(price: Price, base: bigint): bigint {
  return roundHalfEven(exactAmount(price, base));
}

/** Of them free, in base units. */
export function freeOf({ free, kind }: Price, base: bigint): bigint {
  const most = free * kind.perUnit;
  return base < most ? base : most;
}

/** Before it is rounded. */
export function exactAmount(price: Price, base: bigint): Rational {
  const { perUnit } = price.kind;
  const charged = base - freeOf(price, base);
  if (charged === 0n) return zero;
  switch (price.model) {
    case "unit":
      return costOf(charged, perUnit, price.rate);
    case "graduated":
      return graduated(charged, perUnit, price.tiers);
    case "volume":
      return costOf(charged, perUnit, tierOf(charged, perUnit, price.tiers));
  }
}

const costOf = (base: bigint, perUnit: bigint, { micros, per }: Rate): Rational => ({
  numerator: base * micros,
  denominator: perUnit * per,
});

function graduated(charged: bigint, perUnit: bigint, tiers: readonly Tier[]): Rational {
  let amount = zero;
  let from = 0n;
  for (const tier of tiers) {
    const until = tier.upTo === undefined ? charged : least(charged, tier.upTo * perUnit);
    if (until <= from) break;
    amount = plus(amount, costOf(until - from, perUnit, tier));
    from = until;
  }
  return amount;
}

/** The tier of the last unit; the last tier has no end (checked when the plans were read). */
const tierOf = (charged: bigint, perUnit: bigint, tiers: readonly Tier[]): Tier =>
  tiers.find(({ upTo }) => upTo === undefined || charged <= upTo * perUnit)!;

const least = (a: bigint, b: bigint): bigint => (a < b ? a : b);
