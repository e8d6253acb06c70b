/** Plans and use for tests. */
import type { Use } from "../../src/billing/catalog.ts";
import { kindOf, type MeterKey } from "../../src/billing/catalog.ts";
import type { Price, Rate, Tier } from "../../src/billing/plan.ts";

export const useOf = (some: Partial<Use>): Use => ({
  cpuUs: 0n,
  memoryByteSeconds: 0n,
  wallMs: 0n,
  frozenMs: 0n,
  requests: 0n,
  bytesOut: 0n,
  starts: 0n,
  thaws: 0n,
  volumeByteSeconds: 0n,
  ...some,
});

export const unitPrice = (meter: MeterKey, rate: Rate, free = 0n): Price => ({
  name: meter,
  kind: kindOf(meter),
  free,
  model: "unit",
  rate,
});

export const tieredPrice = (
  model: "graduated" | "volume",
  meter: MeterKey,
  tiers: readonly Tier[],
  free = 0n,
): Price => ({ name: meter, kind: kindOf(meter), free, model, tiers });
