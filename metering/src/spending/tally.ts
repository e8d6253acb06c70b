/**
 * What some tenants have used in the running hour, day or month: read from the ledger once, then kept up to date by what is
 * posted. Pure.
 */
import type { Use } from "../billing/catalog.ts";
import { type Period, type PeriodName, periodOf } from "../billing/period.ts";
import type { Posting } from "../core/account.ts";
import { hourMs } from "../core/plausible.ts";

export class Tally {
  readonly #used = new Map<string, Use>();

  private constructor(readonly period: Period) {}

  /** Of the period that `now` (ms since 1970) lies in; nothing is known yet. */
  static at(name: PeriodName, now: number): Tally {
    return new Tally(periodOf(name, now));
  }

  /** False once the period is over, and when the clock went back before it. */
  isOf(now: number): boolean {
    return now >= this.period.start && now < this.period.end;
  }

  /** Nothing for a tenant that has not been read yet. */
  get(tenant: string): Use | undefined {
    return this.#used.get(tenant);
  }

  /** As the ledger has it. */
  set(tenant: string, use: Use): void {
    this.#used.set(tenant, use);
  }

  /** What was posted after the tenant was read; others' is read with them. */
  add({ tenant, hour, growth, starts }: Posting): void {
    const use = this.#used.get(tenant);
    const at = hour * hourMs;
    if (!use || at < this.period.start || at >= this.period.end) return;
    this.#used.set(tenant, {
      cpuUs: use.cpuUs + growth.cpuUs,
      memoryByteSeconds: use.memoryByteSeconds + growth.memoryByteSeconds,
      wallMs: use.wallMs + growth.wallMs,
      frozenMs: use.frozenMs + growth.frozenMs,
      requests: use.requests + growth.requests,
      bytesOut: use.bytesOut + growth.bytesOut,
      thaws: use.thaws + growth.thaws,
      volumeByteSeconds: use.volumeByteSeconds + growth.volumeByteSeconds,
      starts: use.starts + BigInt(starts),
    });
  }

  clear(): void {
    this.#used.clear();
  }
}
