/** Many idle tenants, each asked once per round in random order: what is still there when its turn comes again. */
import { readFileSync } from "node:fs";
import { seeded } from "@warren/common/testing/seeded";

/** A system that holds tenants. */
export interface Holder {
  readonly name: string;
  /** Asks a tenant, which is started if need be; answers the id that it made at its start, undefined if it was refused. */
  ask(tenant: string): Promise<string | undefined>;
  /** Instances that live now. */
  live(): Promise<number>;
  /** Instances that were ended to make room, so far. */
  evictions(): Promise<number>;
}

export interface CrowdFigures {
  readonly live: number;
  readonly evictions: number;
  readonly refused: number;
  /** Second requests that a new instance answered. */
  readonly cold: number;
  /** What the machine has less of, in bytes, per instance that lives. */
  readonly bytesPerLive: number;
  /** ms of each request, in both rounds. */
  readonly first: readonly number[];
  readonly second: readonly number[];
}

/** @param tenants names, each asked once per round, one after the other */
export async function crowd(
  holder: Holder,
  tenants: readonly string[],
  seed: number,
  signal: AbortSignal,
): Promise<CrowdFigures> {
  const random = seeded(seed);
  const before = availableBytes();
  const ids = new Map<string, string>();
  let refused = 0;
  let cold = 0;
  const round = async () => {
    const times: number[] = [];
    for (const tenant of shuffled(tenants, random)) {
      signal.throwIfAborted();
      const began = performance.now();
      const id = await holder.ask(tenant);
      times.push(performance.now() - began);
      if (id === undefined) {
        refused++;
        continue;
      }
      if (ids.has(tenant) && ids.get(tenant) !== id) cold++;
      ids.set(tenant, id);
    }
    return times;
  };
  const first = await round();
  const second = await round();
  const live = await holder.live();
  const bytesPerLive = (before - availableBytes()) / Math.max(1, live);
  return { live, evictions: await holder.evictions(), refused, cold, bytesPerLive, first, second };
}

function availableBytes(): number {
  return Number(/^MemAvailable:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "latin1"))?.[1]) * 1024;
}

/** Fisher and Yates. */
export function shuffled<T>(all: readonly T[], random: () => number): T[] {
  const copy = [...all];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [copy[i], copy[j]] = [copy[j]!, copy[i]!];
  }
  return copy;
}
