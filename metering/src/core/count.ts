/** Counts a batch of records against the accounts there are; pure, so that the shell can commit the result as one. */
import type { StoredRecord } from "@warren/store";
import { type Account, type Posting, post } from "./account.ts";
import { plus } from "./meters.ts";
import { type Oddity, readRecord } from "./observation.ts";

/** A record to be looked at by a person. */
export interface Quarantined extends Oddity {
  readonly record: StoredRecord;
}

/** What a batch changes. */
export interface Counted {
  /** Accounts of every instance that was observed, as they stand after the batch. */
  readonly accounts: ReadonlyMap<string, Account>;
  /** At most one per hour and instance. */
  readonly postings: readonly Posting[];
  readonly quarantined: readonly Quarantined[];
  /** Events read, by type. */
  readonly events: ReadonlyMap<string, number>;
  /** ms since 1970 at which the last readable event happened, by its producer. */
  readonly lastEventAt: number | undefined;
}

/**
 * @param receivedAt ms since 1970, by our clock
 * @param accountOf looks up an instance's account as it stands before the batch
 */
export function countBatch(
  records: readonly StoredRecord[],
  receivedAt: number,
  accountOf: (instance: string) => Account | undefined,
): Counted {
  const accounts = new Map<string, Account>();
  const postings = new Map<string, Posting>();
  const quarantined: Quarantined[] = [];
  const events = new Map<string, number>();
  let lastEventAt: number | undefined;
  for (const record of records) {
    const { type, time, observation, oddity } = readRecord(record, receivedAt);
    events.set(type, (events.get(type) ?? 0) + 1);
    lastEventAt = time ?? lastEventAt;
    let odd = oddity;
    if (observation) {
      const { instance } = observation;
      const outcome = post(accounts.get(instance) ?? accountOf(instance), observation);
      if (outcome.kind === "refused") odd = { kind: "tenant-changed", reason: outcome.reason };
      else {
        accounts.set(instance, outcome.account);
        if (outcome.posting) merge(postings, outcome.posting);
      }
    }
    if (odd) quarantined.push({ ...odd, record });
  }
  return { accounts, postings: [...postings.values()], quarantined, events, lastEventAt };
}

function merge(postings: Map<string, Posting>, posting: Posting): void {
  const key = `${posting.hour} ${posting.instance}`;
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
