/** Accounts as they stand. */
import type { SQL } from "bun";
import type { Account } from "../../core/account.ts";
import { accountColumns } from "../columns.ts";
import { accountIn, type FoundAccount } from "./statements.ts";

export async function readAccounts(sql: SQL, keys: ReadonlySet<string>): Promise<Map<string, Account>> {
  if (keys.size === 0) return new Map();
  return accountsIn(
    await sql.unsafe(
      `SELECT account, ${accountColumns} FROM warren.accounts
       WHERE account IN (SELECT json_array_elements_text($1::text::json))`,
      [JSON.stringify([...keys])],
    ),
  );
}

/** Accounts that have postings of hours before that one which are not folded, or may have. */
export async function oldAccounts(sql: SQL, untilHour: number, limit: number): Promise<Map<string, Account>> {
  return accountsIn(
    await sql.unsafe(
      `SELECT account, ${accountColumns} FROM warren.accounts WHERE from_hour < $1 ORDER BY from_hour LIMIT $2`,
      [untilHour, limit],
    ),
  );
}

const accountsIn = (rows: readonly FoundAccount[]): Map<string, Account> =>
  new Map(rows.map((row) => [row.account, accountIn(row)]));
