/** Accounts and postings in the database. Every method runs single statements; the caller holds the transaction. */
import type { Database, Statement } from "bun:sqlite";
import type { Account, Posting } from "../../core/account.ts";
import { meterNames, plus } from "../../core/meters.ts";
import { meterColumns } from "../columns.ts";
import { columnsOf, type MeterColumns, metersIn } from "./columns.ts";

type AccountRow = MeterColumns & { tenant: string; started: bigint };
type PostingRow = MeterColumns & { starts: bigint };

const places = meterNames.map(() => "?").join(", ");

export class Book {
  readonly #account: Statement<AccountRow, [string]>;
  readonly #setAccount: Statement;
  readonly #posting: Statement<PostingRow, [number, string, string]>;
  readonly #setPosting: Statement;

  constructor(db: Database) {
    this.#account = db.prepare(`SELECT tenant, started, ${meterColumns} FROM accounts WHERE account = ?`);
    this.#setAccount = db.prepare(
      `INSERT OR REPLACE INTO accounts (account, tenant, started, ${meterColumns}) VALUES (?, ?, ?, ${places})`,
    );
    this.#posting = db.prepare(
      `SELECT starts, ${meterColumns} FROM postings WHERE hour = ? AND tenant = ? AND account = ?`,
    );
    this.#setPosting = db.prepare(
      `INSERT OR REPLACE INTO postings (hour, tenant, account, starts, ${meterColumns}) VALUES (?, ?, ?, ?, ${places})`,
    );
  }

  accounts(keys: ReadonlySet<string>): Map<string, Account> {
    const found = new Map<string, Account>();
    for (const key of keys) {
      const row = this.#account.get(key);
      if (row) found.set(key, { tenant: row.tenant, started: row.started !== 0n, used: metersIn(row) });
    }
    return found;
  }

  setAccount(key: string, { tenant, started, used }: Account): void {
    this.#setAccount.run(key, tenant, started ? 1 : 0, ...columnsOf(used));
  }

  /** Added here, not in SQL: its addition turns what passes 2^63 into a float. */
  add({ hour, tenant, account, growth, starts }: Posting): void {
    const before = this.#posting.get(hour, tenant, account);
    const sum = before ? plus(metersIn(before), growth) : growth;
    this.#setPosting.run(hour, tenant, account, Number(before?.starts ?? 0n) + starts, ...columnsOf(sum));
  }

  close(): void {
    for (const statement of [this.#account, this.#setAccount, this.#posting, this.#setPosting]) {
      statement.finalize();
    }
  }
}
