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
 * An account is one instance's, or of one run of a gateway with one tenant: those of gateways are summed like those of
 * instances. Repeats by id are dropped before they come here (seen.ts); the maxima protect where ids do not: an agent that
 * lost its spool sends the same counters under new ids. What must be exactly once is a start and an instance; both are
 * facts about an instance, and its account remembers them.
 */
import { growth, isNothing, type Meters, nothing, plus } from "./meters.ts";
import type { Observation } from "./observation.ts";
import { hourMs } from "./plausible.ts";

/** All that is remembered of one instance, or of one run of a gateway with one tenant; of a gateway that it was heard of. */
export interface Account {
  /** "" of a gateway as such. */
  readonly tenant: string;
  /** Whether its start was posted. */
  readonly started: boolean;
  readonly used: Meters;
  /** On which day of the ledger it was heard of last (clock.ts). */
  readonly seen: number;
  /** Hours since 1970 of its first and its last posting. */
  readonly firstHour: number;
  readonly lastHour: number;
  /** Its postings before this hour are folded (fold.ts). */
  readonly fromHour: number;
}

/** What one observation adds to a tenant's hour. */
export interface Posting {
  readonly tenant: string;
  /** The account that grew. */
  readonly account: string;
  /** Hours since 1970, UTC. */
  readonly hour: number;
  readonly growth: Meters;
  readonly starts: 0 | 1;
}

export type Outcome =
  | { readonly kind: "refused"; readonly reason: string }
  | { readonly kind: "counted"; readonly account: Account; readonly posting: Posting | undefined };

/**
 * @param before the account as it stands; nothing if it was never seen
 * @param day of the ledger
 */
export function post(before: Account | undefined, observation: Observation, day: number): Outcome {
  const { tenant, account, at, sighting } = observation;
  if (before && before.tenant !== tenant) {
    return { kind: "refused", reason: `instance ${account} is ${before.tenant}'s, not ${tenant}'s` };
  }
  const used = before?.used ?? nothing;
  const grown = growth(used, observation.used ?? nothing);
  const starts = observation.ready && !before?.started ? 1 : 0;
  const hour = Math.floor(at / hourMs);
  const news = before === undefined || starts === 1 || !isNothing(grown);
  const posting = sighting || news ? ({ tenant, account, hour, growth: grown, starts } as const) : undefined;
  return {
    kind: "counted",
    account: {
      tenant,
      started: before?.started || observation.ready,
      used: plus(used, grown),
      seen: day,
      ...(before && !posting ? hoursOf(before) : withHour(before, hour)),
    },
    posting,
  };
}

/** Of a gateway, that it was heard of. */
export const heardOf = (before: Account | undefined, { at }: Observation, day: number): Account => ({
  tenant: "",
  started: false,
  used: nothing,
  seen: day,
  ...withHour(before, Math.floor(at / hourMs)),
});

type Hours = Pick<Account, "firstHour" | "lastHour" | "fromHour">;

const hoursOf = ({ firstHour, lastHour, fromHour }: Account): Hours => ({ firstHour, lastHour, fromHour });

/** Late postings come before others, and may be of hours that were folded: these are to be folded again. */
const withHour = (before: Hours | undefined, hour: number): Hours => ({
  firstHour: Math.min(before?.firstHour ?? hour, hour),
  lastHour: Math.max(before?.lastHour ?? hour, hour),
  fromHour: Math.min(before?.fromHour ?? hour, hour),
});
