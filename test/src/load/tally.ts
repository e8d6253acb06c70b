/** Counts what became of each request. */
import type { FailureKind, LoadReport } from "./options.ts";

const mostSamples = 5;

export class Tally {
  readonly #latencies: number[] = [];
  readonly #failures = new Map<FailureKind, { count: number; samples: string[] }>();
  #lagMs = 0;
  due = 0;
  sent = 0;
  failed = 0;

  get ok(): number {
    return this.#latencies.length;
  }

  succeeded(latencyMs: number): void {
    this.#latencies.push(latencyMs);
  }

  late(lagMs: number): void {
    this.#lagMs = Math.max(this.#lagMs, lagMs);
  }

  /** @param atMs after the start */
  fail(kind: FailureKind, atMs: number, where: string, what: string): void {
    this.failed++;
    let of = this.#failures.get(kind);
    if (!of) {
      of = { count: 0, samples: [] };
      this.#failures.set(kind, of);
    }
    of.count++;
    if (of.samples.length < mostSamples) of.samples.push(`${Math.round(atMs)} ms: ${where}: ${what}`);
  }

  report(): LoadReport {
    const sorted = Float64Array.from(this.#latencies).sort();
    const quantile = (q: number) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? 0;
    return {
      due: this.due,
      sent: this.sent,
      ok: this.ok,
      failed: this.failed,
      failures: [...this.#failures].map(([kind, { count, samples }]) => ({ kind, count, samples })),
      p50Ms: quantile(0.5),
      p99Ms: quantile(0.99),
      maxMs: quantile(1),
      lagMs: this.#lagMs,
    };
  }
}
