/** `warren_metering_*`. */
import { Counter, createMetrics, Gauge, Histogram, type Registry } from "@warren/common/metrics";
import { type Clock, systemClock } from "@warren/common/time";
import { type StoredRecord, StoreUnavailableError } from "@warren/store";
import type { Counted } from "./core/count.ts";
import { oddityKinds } from "./core/observation.ts";
import type { Folded, Ledger } from "./ledger/ledger.ts";

export interface MeteringMetrics {
  readonly registry: Registry;
  /** A batch is to be counted: until it is, it is behind. */
  read(batch: { readonly records: readonly StoredRecord[]; readonly pending: number }): void;
  /** @param circumstances how long the commit took in ms, the time in ms since 1970, records in the journal behind it */
  counted(batch: Counted, circumstances: { commitMs: number; now: number; pending: number }): void;
  folded(step: Folded): void;
  /** The journal or the ledger failed. */
  failed(): void;
}

export function meteringMetrics(ledger: Ledger, source: string, clock: Clock = systemClock): MeteringMetrics {
  /** When the oldest record was stored that was read and is not counted, in ms since 1970. */
  let behindSince: number | undefined;
  const registry = createMetrics("warren_metering");
  const registers = [registry];
  const events = new Counter({
    name: "warren_metering_events_total",
    help: "Events read from the journal by this process, by type; repeats included.",
    labelNames: ["type"],
    registers,
  });
  const duplicates = new Counter({
    name: "warren_metering_duplicates_total",
    help: "Records read again that the ledger had counted, by their ids.",
    registers,
  });
  new Gauge({
    name: "warren_metering_missing",
    help: "Records that were not counted though later ones of the same producer were: lost, dropped or on their way.",
    registers,
    collect() {
      return whenThere(async () => this.set(await ledger.missing()));
    },
  });
  const foldedAccounts = new Counter({
    name: "warren_metering_folded_accounts_total",
    help: "Accounts of instances and gateways long gone that this process has folded away.",
    registers,
  });
  const foldedPostings = new Counter({
    name: "warren_metering_folded_postings_total",
    help: "Postings of old hours that this process has added up by tenant and hour.",
    registers,
  });
  const failures = new Counter({
    name: "warren_metering_failures_total",
    help: "Times that counting failed and was tried again.",
    registers,
  });
  const commits = new Histogram({
    name: "warren_metering_commit_seconds",
    help: "Time to count and commit one batch.",
    buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
    registers,
  });
  const lag = new Gauge({
    name: "warren_metering_lag_seconds",
    help: "How long before it was counted the event counted last had happened; or how long the next one waits to be counted.",
    registers,
    collect() {
      // While the ledger is away nothing is counted, and what was counted last says nothing.
      if (behindSince !== undefined) this.set(Math.max(0, clock.now() - behindSince) / 1_000);
    },
  });
  const lagRecords = new Gauge({
    name: "warren_metering_lag_records",
    help: "Records in the journal that are not counted, as of the last batch that was read; embedded: at most.",
    registers,
  });
  new Gauge({
    name: "warren_metering_counted_seq",
    help: "Place in the journal up to which the ledger has counted.",
    registers,
    collect() {
      return whenThere(async () => this.set(Number((await ledger.position(source))?.seq ?? 0n)));
    },
  });
  new Gauge({
    name: "warren_metering_quarantined_total",
    help: "Records ever put in this ledger's quarantine, by kind.",
    labelNames: ["kind"],
    registers,
    collect() {
      return whenThere(async () => {
        const counts = await ledger.quarantineCounts();
        for (const kind of oddityKinds) this.set({ kind }, counts.get(kind) ?? 0);
      });
    },
  });
  return {
    registry,
    folded({ accounts, postings }) {
      foldedAccounts.inc(accounts);
      foldedPostings.inc(postings);
    },
    failed: () => failures.inc(),
    read({ records, pending }) {
      behindSince ??= records[0]?.storedAt;
      lagRecords.set(pending + records.length);
    },
    counted(batch, { commitMs, now, pending }) {
      for (const [type, n] of batch.events) events.inc({ type }, n);
      duplicates.inc(batch.duplicates);
      behindSince = undefined;
      lagRecords.set(pending);
      commits.observe(commitMs / 1_000);
      if (batch.lastEventAt !== undefined) lag.set(Math.max(0, now - batch.lastEventAt) / 1_000);
    },
  };
}

/** A ledger that is away for a while must not take the other metrics with it: these keep their last values. */
async function whenThere(read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (error) {
    if (!(error instanceof StoreUnavailableError)) throw error;
  }
}
