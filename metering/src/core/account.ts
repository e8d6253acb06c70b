/**
 * The ledger's rule, pure: observations in, postings out.
 *
 *  L1  Counters are cumulative since the instance's start, and adoption by a restarted agent keeps id and counters. An
 *      account holds the highest value seen of each meter; only growth beyond it is posted. So a record that comes
 *      twice, late, or not at all (while a later one comes) leaves the totals as they are.
 *  L2  What is counted depends on *which* observations came, never on their order or number. Maxima, the set of
 *      instances, the set of hours in which one was seen, and "was it ever READY" are all of that kind.
 *  L3  Postings only ever add. Growth goes to the UTC hour of the observation that showed it: an hour is right to
 *      within one observation interval, a total to the last unit that was observed.
 *
 * DESIGN asks for repeats to be removed by id, for ever. No table of ids does that here, because L1 and L2 make the
 * second reading of any record a no-op whatever its id: as long as the account exists, which is for ever. A table of
 * ids would grow with every report (one each few seconds per instance) instead of with every instance, and would not
 * help where a producer sends the same counters under a new id, as an agent does that lost its spool. What must be
 * exactly once is a start and an instance; both are facts about an instance, and its account remembers them.
 */
import { growth, isNothing, type Meters, nothing, plus } from "./meters.ts";
import type { Observation } from "./observation.ts";
import { hourMs } from "./plausible.ts";

/** All that is remembered of one instance. */
export interface Account {
  readonly tenant: string;
  /** Whether its start was posted. */
  readonly started: boolean;
  readonly used: Meters;
}

/** What one observation adds to a tenant's hour. */
export interface Posting {
  readonly tenant: string;
  readonly instance: string;
  /** Hours since 1970, UTC. */
  readonly hour: number;
  readonly growth: Meters;
  readonly starts: 0 | 1;
}

export type Outcome =
  | { readonly kind: "refused"; readonly reason: string }
  | { readonly kind: "counted"; readonly account: Account; readonly posting: Posting | undefined };

/** @param account of the observed instance; nothing if it was never seen */
export function post(account: Account | undefined, observation: Observation): Outcome {
  const { tenant, instance, at, ownTime } = observation;
  if (account && account.tenant !== tenant) {
    return { kind: "refused", reason: `instance ${instance} is ${account.tenant}'s, not ${tenant}'s` };
  }
  const before = account?.used ?? nothing;
  const grown = growth(before, observation.used ?? nothing);
  const starts = observation.ready && !account?.started ? 1 : 0;
  const posting = { tenant, instance, hour: Math.floor(at / hourMs), growth: grown, starts } as const;
  // That the instance was seen in this hour is worth a posting. Without a time of its own a repeat would be seen in
  // another hour each time it comes, so then only news count.
  const news = account === undefined || starts === 1 || !isNothing(grown);
  return {
    kind: "counted",
    account: { tenant, started: account?.started || observation.ready, used: plus(before, grown) },
    posting: ownTime || news ? posting : undefined,
  };
}
