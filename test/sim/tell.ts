/** What a person reads of simulations: how many, what was done to them, and a failing one's story. */
import type { Plan } from "./plan.ts";
import { type Result, run } from "./run.ts";
import { keep, shrink } from "./shrink.ts";

/** Sums of many runs. */
export class Tally {
  seeds = 0;
  steps = 0;
  virtualMs = 0;
  mostConvergedMs = 0;
  readonly faults: Record<string, number> = {};
  readonly exemptions = { lost: 0, cutOff: 0 };
  readonly served = { served: 0, broken: 0, refused: 0 };
  readonly #began = performance.now();

  add({ steps, virtualMs, convergedMs, faults, site }: Result): void {
    this.seeds++;
    this.steps += steps;
    this.virtualMs += virtualMs;
    this.mostConvergedMs = Math.max(this.mostConvergedMs, convergedMs);
    for (const [kind, n] of Object.entries(faults)) this.faults[kind] = (this.faults[kind] ?? 0) + n;
    for (const kind of ["lost", "cutOff"] as const) this.exemptions[kind] += site.truth.exemptions[kind];
    for (const how of ["served", "broken", "refused"] as const) this.served[how] += site.served[how];
  }

  lines(): string {
    const seconds = (performance.now() - this.#began) / 1000;
    const faults = Object.entries(this.faults).sort(([, a], [, b]) => b - a);
    const all = faults.reduce((sum, [, n]) => sum + n, 0);
    const { served, broken, refused } = this.served;
    const { lost, cutOff } = this.exemptions;
    return [
      `seeds: ${this.seeds}, steps: ${count(this.steps)} (${count(this.steps / seconds)}/s), ${(this.virtualMs / 3.6e6).toFixed(1)} h of virtual time`,
      `faults: ${count(all)} (${faults.map(([kind, n]) => `${kind} ${count(n)}`).join(", ")})`,
      `requests: ${count(served)} served, ${count(broken)} broken off, ${count(refused)} refused`,
      `converged: at the latest ${(this.mostConvergedMs / 1000).toFixed(1)} s after the last fault`,
      `exempted by design: ${count(lost)} instances given up with their nodes (rules 1 and 2), ${count(cutOff)} requests of gateways cut off from their scheduler (rule 3)`,
    ].join("\n");
  }
}

/** The last of what happened before a rule was broken. */
const lastLines = 120;

/** A failing run: what is broken, the shrunk history, what happened last, and how to see it again. */
export function story(plan: Plan, failed: Result, budgetMs = 30_000): string {
  const { seed } = plan.setup;
  const { kept, tries } = shrink(plan, failed, {}, budgetMs);
  const lines: string[] = [];
  const again = run(keep(plan, kept), {
    onTrace: (at, line) => {
      lines.push(`${at.toFixed(1).padStart(10)}  ${line}`);
    },
  });
  const { nodes, gateways, tenants, config } = plan.setup;
  return [
    `SEED=${seed}: ${failed.violation?.message}`,
    `${nodes} nodes, ${gateways} gateways, ${tenants} tenants, maxConcurrent ${config.maxConcurrent}`,
    `shrunk from ${plan.items.length} items to ${kept.length} in ${tries} tries: ${again.violation?.message}`,
    ...kept.map((i) => `  item ${i}: ${JSON.stringify(plan.items[i])}`),
    `the last ${Math.min(lastLines, lines.length)} of ${lines.length} lines of it:`,
    ...lines.slice(-lastLines).map((line) => line.slice(0, 300)),
    `again: make sim SEED=${seed}   shrunk: make sim SEED=${seed} KEEP=${ranges(kept)}`,
  ].join("\n");
}

/** "0-3,17" */
export function ranges(numbers: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < numbers.length; ) {
    let end = i;
    while (numbers[end + 1] === numbers[end]! + 1) end++;
    parts.push(end === i ? `${numbers[i]}` : `${numbers[i]}-${numbers[end]}`);
    i = end + 1;
  }
  return parts.join(",");
}

/** @throws RangeError when it is no list of ranges */
export function fromRanges(text: string): number[] {
  return text.split(",").flatMap((part) => {
    const [from, to = from] = part.split("-").map(Number);
    if (!Number.isInteger(from) || !Number.isInteger(to))
      throw new RangeError(`KEEP: ${part} is no range of items`);
    return Array.from({ length: to! - from! + 1 }, (_, i) => from! + i);
  });
}

function count(n: number): string {
  return Math.round(n).toLocaleString("en-US");
}
