/** The ledger without its file: the pure core with maps, and what a bill would say. */
import type { JournalRecord } from "@warren/store";
import type { Account, Posting } from "../src/core/account.ts";
import { defaultFoldAfter, freshClock } from "../src/core/clock.ts";
import { countBatch, type Quarantined, type Run, readBatch } from "../src/core/count.ts";
import { type Meters, nothing, plus } from "../src/core/meters.ts";
import { stored } from "./events.ts";

export interface Total extends Meters {
  readonly starts: number;
  readonly instances: number;
}

export class MapLedger {
  readonly accounts = new Map<string, Account>();
  readonly postings: Posting[] = [];
  readonly runs = new Map<string, Run>();
  clock = freshClock(defaultFoldAfter);
  readonly quarantined: Quarantined[] = [];
  duplicates = 0;

  /** @param storedAt ms since 1970 */
  count(records: readonly JournalRecord[], storedAt: number): this {
    const counted = countBatch(readBatch(stored(records, { storedAt })), this);
    for (const [key, account] of counted.accounts) this.accounts.set(key, account);
    for (const [name, run] of counted.runs) this.runs.set(name, run);
    this.clock = counted.clock;
    this.duplicates += counted.duplicates;
    this.postings.push(...counted.postings);
    this.quarantined.push(...counted.quarantined);
    return this;
  }

  get kinds(): string[] {
    return this.quarantined.map(({ kind }) => kind);
  }

  /** Of one tenant, in one hour (ms since 1970 at its beginning) or in all. */
  total(tenant: string, hourAt?: number): Total {
    const own = this.postings.filter(
      (posting) => posting.tenant === tenant && (hourAt === undefined || posting.hour === hourAt / 3_600_000),
    );
    return {
      ...own.reduce((sum, { growth }) => plus(sum, growth), nothing),
      starts: own.reduce((sum, { starts }) => sum + starts, 0),
      instances: new Set(own.map(({ account }) => account).filter((account) => !account.includes("/"))).size,
    };
  }
}
