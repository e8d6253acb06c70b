/** Whether the ledger says what is true: to within one observation interval per instance (rule 8). */
import type { TenantUsage } from "@warren/proto/metering";
import { type Life, type Truth, type Used, usedNames } from "./truth.ts";

/** How often an agent looks at an instance, ms; on a busy machine as much later as our own looks were. */
const observeMs = 1_000;
/** How often it reports what it saw, and how long that may be on its way to the ledger on a machine that is busy, ms. */
const reportMs = 5_000;
const onItsWayMs = 5_000;
/**
 * What the kernel's own books and a look each 200 ms may differ in, per instance: the work of a process on its way out,
 * whose last look was before it; and the kernel's rounding of CPU time.
 */
const slack: Used = { cpuUs: 40_000, byteSeconds: 6 * 2 ** 20, wallMs: 600, frozenMs: 600 };

const billed: Record<keyof Used, (row: TenantUsage | undefined) => number> = {
  cpuUs: (row) => Number(row?.cpuUs ?? 0n),
  byteSeconds: (row) => Number(row?.memoryByteSeconds ?? 0n),
  wallMs: (row) => Number(row?.wallMs ?? 0n),
  frozenMs: (row) => Number(row?.frozenMs ?? 0n),
};

export interface Difference {
  readonly tenant: string;
  readonly meter: keyof Used;
  readonly billed: number;
  readonly least: number;
  readonly most: number;
}

/**
 * Where the ledger is outside of what can be true at this moment.
 * @param behind how far the ledger may be behind for instances that live: what was reported since is on its way
 */
export function differences(
  truth: Truth,
  rows: ReadonlyMap<string, TenantUsage>,
  behind = reportMs + onItsWayMs,
): { readonly missing: Difference[]; readonly invented: Difference[] } {
  truth.look();
  const now = performance.now();
  const missing: Difference[] = [];
  const invented: Difference[] = [];
  for (const [tenant, lives] of byTenant(truth)) {
    for (const meter of usedNames) {
      let least = 0;
      let most = 0;
      for (const life of lives) {
        const intervalMs = observeMs + life.longestGapMs;
        const unseen = meter === "byteSeconds" ? life.unseenByteSeconds : 0;
        const interval = life.last[meter] - life.at(lastLook(life) - intervalMs)[meter] + unseen;
        const seen = life.endedAt === undefined ? life.at(now - behind)[meter] : life.last[meter];
        least += Math.max(0, seen - interval - slack[meter]);
        most += life.last[meter] + interval + slack[meter];
      }
      const found = { tenant, meter, billed: billed[meter](rows.get(tenant)), least, most };
      if (found.billed < least) missing.push(found);
      if (found.billed > most) invented.push(found);
    }
  }
  return { missing, invented };
}

/** What the ledger and the truth come to in all, for whoever reads the test's output. */
export function ratios(truth: Truth, rows: ReadonlyMap<string, TenantUsage>): string {
  const lives = [...truth.lives.values()];
  const sums = usedNames.map((meter) => {
    const real = lives.reduce((sum, life) => sum + life.last[meter], 0);
    const paid = [...rows.values()].reduce((sum, row) => sum + billed[meter](row), 0);
    return `${meter} ${real > 0 ? (paid / real).toFixed(4) : "-"}`;
  });
  return `billed by used, of ${lives.length} lives: ${sums.join(", ")}`;
}

function lastLook({ samples }: Life): number {
  return samples.at(-1)?.at ?? 0;
}

function byTenant(truth: Truth): Map<string, Life[]> {
  const tenants = new Map<string, Life[]>();
  for (const life of truth.lives.values()) {
    const lives = tenants.get(life.tenant) ?? [];
    lives.push(life);
    tenants.set(life.tenant, lives);
  }
  return tenants;
}
