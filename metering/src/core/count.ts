/** Counts a batch of records against what the ledger holds; pure, so that the shell can commit the result as one. */
import type { StoredRecord } from "@warren/store";
import { type Account, heardOf, type Posting, post } from "./account.ts";
import { type LedgerClock, RunningClock } from "./clock.ts";
import { isTooLate, lifeOf } from "./life.ts";
import { plus } from "./meters.ts";
import { type Oddity, type Reading, readRecord } from "./observation.ts";
import { parseId, type RecordId, Seen } from "./seen.ts";

/** A record to be looked at by a person. */
export interface Quarantined extends Oddity {
  readonly record: StoredRecord;
}

interface ReadEntry {
  readonly record: StoredRecord;
  readonly reading: Reading;
  /** Nothing where a repeat cannot be told by the id. */
  readonly id: RecordId | undefined;
}

/** A batch that was read, and what must be looked up to count it. */
export interface Batch {
  readonly entries: readonly ReadEntry[];
  readonly accounts: ReadonlySet<string>;
  readonly runs: ReadonlySet<string>;
}

/** What is remembered of a producer's run. */
export interface Run {
  /** See {@link Seen.toString}. */
  readonly ranges: string;
  /** Records known to be missing. */
  readonly missing: number;
  /** When the newest record of it was stored, in ms since 1970. */
  readonly lastAt: number;
}

/** As they stand before the batch. */
export interface Standing {
  readonly accounts: ReadonlyMap<string, Account>;
  readonly runs: ReadonlyMap<string, Run>;
  readonly clock: LedgerClock;
}

/** What a batch changes. */
export interface Counted {
  /** Every account that was observed, as it stands after the batch. */
  readonly accounts: ReadonlyMap<string, Account>;
  /** Every run that was heard of, likewise. */
  readonly runs: ReadonlyMap<string, Run>;
  /** The one before, where it has not changed. */
  readonly clock: LedgerClock;
  /** At most one per hour and account. */
  readonly postings: readonly Posting[];
  readonly quarantined: readonly Quarantined[];
  /** Records that were counted before, by their ids. */
  readonly duplicates: number;
  /** Events read, by type; repeats included. */
  readonly events: ReadonlyMap<string, number>;
  /** ms since 1970 at which the last readable event happened, by its producer. */
  readonly lastEventAt: number | undefined;
}

export function readBatch(records: readonly StoredRecord[]): Batch {
  const entries = records.map((record): ReadEntry => {
    const reading = readRecord(record);
    return { record, reading, id: hasOrdinaryId(reading) ? parseId(record.id) : undefined };
  });
  return {
    entries,
    accounts: new Set(
      entries.flatMap(({ reading: { observation } }) =>
        observation ? [observation.account, lifeOf(observation.account)] : [],
      ),
    ),
    runs: new Set(entries.flatMap(({ id }) => id?.run ?? [])),
  };
}

/** Budget alerts end in their percentage; and what we failed at may be read better by a later version. */
function hasOrdinaryId({ type, oddity }: Reading): boolean {
  return type !== "budget" && oddity?.kind !== "failed";
}

export function countBatch({ entries }: Batch, standing: Standing): Counted {
  const accounts = new Map<string, Account>();
  const postings = new Map<string, Posting>();
  const quarantined: Quarantined[] = [];
  const events = new Map<string, number>();
  const runs = new RunsSeen(standing.runs);
  const clock = new RunningClock(standing.clock);
  const accountOf = (key: string) => accounts.get(key) ?? standing.accounts.get(key);
  let duplicates = 0;
  let lastEventAt: number | undefined;
  for (const { record, reading, id } of entries) {
    const { type, time, observation } = reading;
    events.set(type, (events.get(type) ?? 0) + 1);
    lastEventAt = time ?? lastEventAt;
    clock.advance(record.storedAt);
    if (id && !runs.add(id, record.storedAt)) {
      duplicates++;
      continue;
    }
    let odd = reading.oddity;
    if (observation) {
      const { account } = observation;
      const life = lifeOf(account);
      const { day } = clock.now;
      const outcome = post(accountOf(account), observation, day);
      if (isTooLate(observation, accountOf(life), record.storedAt, clock.now)) {
        odd = { kind: "too-late", reason: `${life} was silent for longer than is remembered` };
      } else if (outcome.kind === "refused") odd = { kind: "tenant-changed", reason: outcome.reason };
      else {
        accounts.set(account, outcome.account);
        if (life !== account) accounts.set(life, heardOf(accountOf(life), observation, day));
        if (outcome.posting) merge(postings, outcome.posting);
      }
    }
    if (odd) quarantined.push({ ...odd, record });
  }
  return {
    accounts,
    runs: runs.changed(),
    clock: clock.now,
    postings: [...postings.values()],
    quarantined,
    duplicates,
    events,
    lastEventAt,
  };
}

/** The runs that a batch is about. */
class RunsSeen {
  readonly #open = new Map<string, { seen: Seen; lastAt: number }>();

  constructor(readonly standing: ReadonlyMap<string, Run>) {}

  /** Whether the record is new. */
  add({ run, seq }: RecordId, storedAt: number): boolean {
    let open = this.#open.get(run);
    if (!open) {
      const { ranges, lastAt } = this.standing.get(run) ?? { ranges: "", lastAt: 0 };
      open = { seen: Seen.parse(ranges), lastAt };
      this.#open.set(run, open);
    }
    open.lastAt = Math.max(open.lastAt, storedAt);
    return open.seen.add(seq);
  }

  changed(): ReadonlyMap<string, Run> {
    return new Map(
      [...this.#open].map(([run, { seen, lastAt }]) => [
        run,
        { ranges: seen.toString(), missing: seen.missing, lastAt },
      ]),
    );
  }
}

function merge(postings: Map<string, Posting>, posting: Posting): void {
  const key = `${posting.hour} ${posting.account}`;
  const before = postings.get(key);
  postings.set(
    key,
    before
      ? {
          ...posting,
          growth: plus(before.growth, posting.growth),
          starts: before.starts || posting.starts,
        }
      : posting,
  );
}
