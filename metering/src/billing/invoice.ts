/** What a month costs a tenant. Pure. */
import type { MeterKind, Use } from "./catalog.ts";
import type { Plan } from "./plan.ts";
import { amountOf, freeOf } from "./price.ts";

export interface Line {
  readonly name: string;
  readonly kind: MeterKind;
  readonly model: string;
  /** In base units. */
  readonly quantity: bigint;
  /** Of it free, in base units. */
  readonly free: bigint;
  /** In micros. */
  readonly amount: bigint;
}

/** All in micros. */
export interface Bill {
  readonly lines: readonly Line[];
  readonly subtotal: bigint;
  /** Added to come to the plan's minimum. */
  readonly minimum: bigint;
  readonly total: bigint;
}

/** @param minimumDue false for a tenant that the plans do not name and that used nothing: it may not exist */
export function billOf(plan: Plan, use: Use, minimumDue: boolean): Bill {
  const lines = plan.prices.map((price) => {
    const quantity = price.kind.of(use);
    return {
      name: price.name,
      kind: price.kind,
      model: price.model,
      quantity,
      free: freeOf(price, quantity),
      amount: amountOf(price, quantity),
    };
  });
  const subtotal = lines.reduce((sum, { amount }) => sum + amount, 0n);
  const minimum = minimumDue && subtotal < plan.minimum ? plan.minimum - subtotal : 0n;
  return { lines, subtotal, minimum, total: subtotal + minimum };
}
