/** What a plan is, once it has been read and checked. Pure. */
import type { MeterKind } from "./catalog.ts";

/** So many millionths of the currency's unit for each so many units of the meter. */
export interface Rate {
  readonly micros: bigint;
  /** At least 1. */
  readonly per: bigint;
}

/** Units beyond those of the tier before it, up to and with `upTo`; without one: all that is left. */
export interface Tier extends Rate {
  readonly upTo?: bigint;
}

export type Price = {
  readonly name: string;
  readonly kind: MeterKind;
  /** Units that cost nothing. Tiers begin to count after them. */
  readonly free: bigint;
} & (
  | { readonly model: "unit"; readonly rate: Rate }
  /** graduated: each unit by the tier that it falls into; volume: all units by the tier of the last one. */
  | { readonly model: "graduated" | "volume"; readonly tiers: readonly Tier[] }
);

export interface Budget {
  readonly micros: bigint;
  /** Ascending. */
  readonly alertPercents: readonly number[];
}

export interface Plan {
  readonly name: string;
  readonly prices: readonly Price[];
  /** Least that a month costs, in micros. */
  readonly minimum: bigint;
  readonly budget?: Budget;
}

export interface Plans {
  /** ISO 4217. */
  readonly currency: string;
  readonly plans: ReadonlyMap<string, Plan>;
  /** By a tenant's exact key. */
  readonly exact: ReadonlyMap<string, Plan>;
  /** In the file's order: the first that matches counts. */
  readonly patterns: readonly { readonly matches: RegExp; readonly plan: Plan }[];
  /** For all others. */
  readonly fallback?: Plan;
}

/** By its exact key, else by the first pattern that matches, else the default; nothing where there is none. */
export function planOf(plans: Plans, tenant: string): Plan | undefined {
  return (
    plans.exact.get(tenant) ??
    plans.patterns.find(({ matches }) => matches.test(tenant))?.plan ??
    plans.fallback
  );
}
