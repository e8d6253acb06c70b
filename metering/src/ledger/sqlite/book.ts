/** Accounts and postings in the database. Every method runs single statements; the caller holds the transaction. */
import type { Database, Statement } from "bun:sqlite";
import type { Account, Posting } from "../../core/account.ts";
import { type Candidate, foldedKeys, type HourRow } from "../../core/fold.ts";
import { meterNames, plus } from "../../core/meters.ts";
import { accountColumns, meterColumns } from "../columns.ts";
import { columnsOf, type MeterColumns, metersIn } from "./columns.ts";

export type AccountColumns = MeterColumns &
  Record<"started" | "seen" | "first_hour" | "last_hour" | "from_hour", bigint> & { tenant: string };
export type HourColumns = MeterColumns &
  Record<"hour" | "starts" | "instances", bigint> & { tenant: string; account: string };
type PostingRow = MeterColumns & { starts: bigint };

const places = meterNames.map(() => "?").join(", ");

export const insertAccount = `INSERT INTO accounts (account, ${accountColumns}) VALUES (?, ?, ?, ${places}, ?, ?, ?, ?)`;
export const hourColumns = `hour, tenant, account, starts, instances, ${meterColumns}`;
export const insertHour = `INSERT INTO postings (${hourColumns}) VALUES (?, ?, ?, ?, ?, ${places})`;

export const accountIn = (row: AccountColumns): Account => ({
  tenant: row.tenant,
  started: row.started !== 0n,
  used: metersIn(row),
  seen: Number(row.seen),
  firstHour: Number(row.first_hour),
  lastHour: Number(row.last_hour),
  fromHour: Number(row.from_hour),
});

export const accountValues = (key: string, account: Account) => {
  const { tenant, started, used, seen, firstHour, lastHour, fromHour } = account;
  return [key, tenant, started ? 1 : 0, ...columnsOf(used), seen, firstHour, lastHour, fromHour];
};

export const hourIn = (row: HourColumns): HourRow => ({
  hour: Number(row.hour),
  tenant: row.tenant,
  account: row.account,
  starts: Number(row.starts),
  instances: Number(row.instances),
  used: metersIn(row),
});

export const hourValues = ({ hour, tenant, account, starts, instances, used }: HourRow) => [
  hour,
  tenant,
  account,
  starts,
  instances,
  ...columnsOf(used),
];

/** "a = excluded.a" of each. Not INSERT OR REPLACE, which writes the row's places in all indexes anew. */
const excluded = (columns: string): string =>
  columns
    .split(", ")
    .map((column) => `${column} = excluded.${column}`)
    .join(", ");

export class Book {
  readonly #account: Statement<AccountColumns, [string]>;
  readonly #setAccount: Statement;
  readonly #removeAccount: Statement;
  readonly #old: Statement<AccountColumns & { account: string }, [number, number]>;
  readonly #posting: Statement<PostingRow, [number, string, string]>;
  readonly #setHour: Statement;
  readonly #removeHour: Statement;
  readonly #hours: Statement<HourColumns, [string, number, number, string]>;
  readonly #folded: Statement<HourColumns, [number, string]>;

  constructor(db: Database) {
    this.#account = db.prepare(`SELECT ${accountColumns} FROM accounts WHERE account = ?`);
    this.#setAccount = db.prepare(
      `${insertAccount} ON CONFLICT (account) DO UPDATE SET ${excluded(accountColumns)}`,
    );
    this.#removeAccount = db.prepare("DELETE FROM accounts WHERE account = ?");
    this.#old = db.prepare(
      `SELECT account, ${accountColumns} FROM accounts WHERE from_hour < ? ORDER BY from_hour LIMIT ?`,
    );
    this.#posting = db.prepare(
      `SELECT starts, ${meterColumns} FROM postings WHERE hour = ? AND tenant = ? AND account = ?`,
    );
    this.#setHour = db.prepare(
      `${insertHour} ON CONFLICT (hour, tenant, account) DO UPDATE SET ${excluded(`starts, instances, ${meterColumns}`)}`,
    );
    this.#removeHour = db.prepare("DELETE FROM postings WHERE hour = ? AND tenant = ? AND account = ?");
    this.#hours = db.prepare(
      `SELECT ${hourColumns} FROM postings INDEXED BY postings_by_tenant
       WHERE tenant = ? AND hour >= ? AND hour < ? AND account = ?`,
    );
    this.#folded = db.prepare(
      `SELECT ${hourColumns} FROM postings
       WHERE hour = ? AND tenant = ? AND account >= '${foldedKeys.from}' AND account < '${foldedKeys.until}'`,
    );
  }

  accounts(keys: ReadonlySet<string>): Map<string, Account> {
    const found = new Map<string, Account>();
    for (const key of keys) {
      const row = this.#account.get(key);
      if (row) found.set(key, accountIn(row));
    }
    return found;
  }

  setAccount(key: string, account: Account): void {
    this.#setAccount.run(...accountValues(key, account));
  }

  removeAccount(key: string): void {
    this.#removeAccount.run(key);
  }

  /** Accounts that have postings of hours before that one which are not folded, or may have. */
  oldAccounts(untilHour: number, limit: number): Map<string, Account> {
    return new Map(this.#old.all(untilHour, limit).map((row) => [row.account, accountIn(row)]));
  }

  /** Added here, not in SQL: its addition turns what passes 2^63 into a float. */
  add({ hour, tenant, account, growth, starts }: Posting): void {
    const before = this.#posting.get(hour, tenant, account);
    const used = before ? plus(metersIn(before), growth) : growth;
    const all = Number(before?.starts ?? 0n) + starts;
    this.setHour({ hour, tenant, account, starts: all, instances: 0, used });
  }

  setHour(row: HourRow): void {
    this.#setHour.run(...hourValues(row));
  }

  removeHour({ hour, tenant, account }: HourRow): void {
    this.#removeHour.run(hour, tenant, account);
  }

  hoursOf({ key, account, fromHour, untilHour }: Candidate): HourRow[] {
    const { tenant, firstHour } = account;
    const rows = this.#hours.all(tenant, fromHour, untilHour, key);
    if (firstHour < fromHour) rows.push(...this.#hours.all(tenant, firstHour, firstHour + 1, key));
    return rows.map(hourIn);
  }

  /** What is folded of each of these tenants and hours. */
  folded(of: readonly HourRow[]): HourRow[] {
    return of.flatMap(({ hour, tenant }) => this.#folded.all(hour, tenant).map(hourIn));
  }

  close(): void {
    for (const statement of [
      this.#account,
      this.#setAccount,
      this.#removeAccount,
      this.#old,
      this.#posting,
      this.#setHour,
      this.#removeHour,
      this.#hours,
      this.#folded,
    ]) {
      statement.finalize();
    }
  }
}
