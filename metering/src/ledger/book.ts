/** Accounts and postings in the database. Every method is one statement; the caller holds the transaction. */
import type { Database, Statement } from "bun:sqlite";
import type { Account, Posting } from "../core/account.ts";
import { plus } from "../core/meters.ts";
import { columnsOf, type MeterColumns, metersIn } from "./columns.ts";

type AccountRow = MeterColumns & { tenant: string; started: bigint };
type PostingRow = MeterColumns & { starts: bigint };

const meterColumns = "cpu_us, memory_byte_seconds, wall_ms, frozen_ms";

export class Book {
  readonly #account: Statement<AccountRow, [string]>;
  readonly #setAccount: Statement;
  readonly #posting: Statement<PostingRow, [number, string, string]>;
  readonly #setPosting: Statement;

  constructor(db: Database) {
    this.#account = db.prepare(`SELECT tenant, started, ${meterColumns} FROM accounts WHERE instance = ?`);
    this.#setAccount = db.prepare(
      `INSERT OR REPLACE INTO accounts (instance, tenant, started, ${meterColumns}) VALUES (?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#posting = db.prepare(
      `SELECT starts, ${meterColumns} FROM postings WHERE hour = ? AND tenant = ? AND instance = ?`,
    );
    this.#setPosting = db.prepare(
      `INSERT OR REPLACE INTO postings (hour, tenant, instance, starts, ${meterColumns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
    );
  }

  account(instance: string): Account | undefined {
    const row = this.#account.get(instance);
    return row ? { tenant: row.tenant, started: row.started !== 0n, used: metersIn(row) } : undefined;
  }

  setAccount(instance: string, { tenant, started, used }: Account): void {
    this.#setAccount.run(instance, tenant, started ? 1 : 0, ...columnsOf(used));
  }

  /** Added here, not in SQL: its addition turns what passes 2^63 into a float. */
  add({ hour, tenant, instance, growth, starts }: Posting): void {
    const before = this.#posting.get(hour, tenant, instance);
    const sum = before ? plus(metersIn(before), growth) : growth;
    this.#setPosting.run(hour, tenant, instance, Number(before?.starts ?? 0n) + starts, ...columnsOf(sum));
  }

  close(): void {
    for (const statement of [this.#account, this.#setAccount, this.#posting, this.#setPosting]) {
      statement.finalize();
    }
  }
}
