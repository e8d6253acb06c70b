/**
 * Folds what is old, so that the ledger grows by tenants and hours, and not by instances. Pure.
 *
 *  D1  What was used in an hour by a tenant is the same before and after, to the last unit: postings of many accounts become
 *      one of that hour.
 *  D2  An account goes when what it is about has been silent for the horizon (life.ts), and all its postings with it. What
 *      comes of it later is refused: it cannot be told from what was counted.
 *  D3  Who lives keeps his account; of his old postings stays, empty, the first: where he was seen. So an instance is
 *      counted once in any window of old hours, in the hour in which it was seen first, and once also in a window that goes
 *      on into hours that are not folded.
 *  D4  What is folded in the end follows from what was counted, and not from when there was time for it.
 */
import type { Account } from "./account.ts";
import { foldedUntil, type LedgerClock } from "./clock.ts";
import { isOver, lifeOf, trafficMark } from "./life.ts";
import { isNothing, type Meters, meters, nothing, plus } from "./meters.ts";

/** What was used in an hour: an account's posting, or what was folded of a tenant's. */
export interface HourRow {
  /** Hours since 1970. */
  readonly hour: number;
  readonly tenant: string;
  /** Of what was folded see {@link foldedKeys}. */
  readonly account: string;
  readonly starts: number;
  /** Folded instances that were first seen in it. */
  readonly instances: number;
  readonly used: Meters;
}

/** An account to be folded, and which of its postings: the first, and those of these hours. */
export interface Candidate {
  readonly key: string;
  readonly account: Account;
  readonly fromHour: number;
  readonly untilHour: number;
  /** Nothing of it is left then. */
  readonly goes: boolean;
}

/** Accounts looked at in one step, and the longest part of a life that is folded of each: bound how long it takes. */
export const stepAccounts = 32;
const stepHours = 31 * 24;

/** @param lives of the accounts, see {@link lifeOf} */
export function candidates(
  accounts: ReadonlyMap<string, Account>,
  lives: ReadonlyMap<string, Account>,
  clock: LedgerClock,
): Candidate[] {
  return [...accounts].map(([key, account]) => {
    const { fromHour, lastHour } = account;
    const over = isOver(key, lives.get(lifeOf(key)) ?? account, clock);
    const end = over ? lastHour + 1 : foldedUntil(clock);
    const untilHour = Math.min(end, fromHour + stepHours);
    return { key, account, fromHour, untilHour, goes: over && untilHour === end };
  });
}

/** What a step changes, but for the folded rows themselves. */
export interface FoldPlan {
  /** Accounts that go. */
  readonly gone: readonly string[];
  /** Accounts that stay. */
  readonly accounts: ReadonlyMap<string, Account>;
  /** Postings that go. */
  readonly removed: readonly HourRow[];
  /** First postings that stay, empty. */
  readonly emptied: readonly HourRow[];
  /** To be added to what is folded already: one per tenant and hour. */
  readonly sums: readonly HourRow[];
  /** Whether there may be more to do. */
  readonly more: boolean;
}

/** @param postings theirs, as asked for */
export function planFold(
  chosen: readonly Candidate[],
  postings: readonly HourRow[],
  clock: LedgerClock,
): FoldPlan {
  const byAccount = Map.groupBy(postings, ({ account }) => account);
  const sums = new Map<string, HourRow>();
  const removed: HourRow[] = [];
  const emptied: HourRow[] = [];
  for (const { key, account, goes } of chosen) {
    const isInstance = !key.includes(trafficMark);
    for (const row of byAccount.get(key) ?? []) {
      const isFirst = isInstance && row.hour === account.firstHour;
      if (!isFirst || goes) removed.push(row);
      else if (isEmpty(row)) continue;
      else emptied.push({ ...row, starts: 0, used: nothing });
      add(sums, { ...row, instances: isFirst && goes ? 1 : 0 });
    }
  }
  const stay = chosen.filter(({ goes }) => !goes);
  return {
    gone: chosen.filter(({ goes }) => goes).map(({ key }) => key),
    accounts: new Map(stay.map(({ key, account, untilHour }) => [key, { ...account, fromHour: untilHour }])),
    removed,
    emptied,
    sums: [...sums.values()],
    more: chosen.length === stepAccounts || stay.some(({ untilHour }) => untilHour < foldedUntil(clock)),
  };
}

/** One row, but where a meter is above what a column holds: as many as it takes, each of the others full. */
export const foldedKeys = { first: trafficMark, from: "/", until: "0" } as const;
const most = 2n ** 64n - 1n;

/** Folded rows as they are to stand. @param standing those of the same tenants and hours, as they stand */
export function foldedRows(standing: readonly HourRow[], sums: readonly HourRow[]): HourRow[] {
  const all = new Map<string, HourRow>();
  for (const row of [...standing, ...sums]) add(all, row);
  return [...all.values()].flatMap(parted);
}

function parted(whole: HourRow): HourRow[] {
  const rows: HourRow[] = [];
  let rest = whole.used;
  do {
    const part = meters((name) => (rest[name] > most ? most : rest[name]));
    const [account, starts, instances] =
      rows.length === 0
        ? [foldedKeys.first, whole.starts, whole.instances]
        : [`${foldedKeys.first}${rows.length}`, 0, 0];
    rows.push({ ...whole, account, starts, instances, used: part });
    rest = meters((name) => rest[name] - part[name]);
  } while (!isNothing(rest));
  return rows;
}

function add(sums: Map<string, HourRow>, row: HourRow): void {
  const key = `${row.hour} ${row.tenant}`;
  const before = sums.get(key);
  sums.set(key, {
    hour: row.hour,
    tenant: row.tenant,
    account: foldedKeys.first,
    starts: row.starts + (before?.starts ?? 0),
    instances: row.instances + (before?.instances ?? 0),
    used: before ? plus(before.used, row.used) : row.used,
  });
}

const isEmpty = ({ starts, used }: HourRow): boolean => starts === 0 && isNothing(used);
