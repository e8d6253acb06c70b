/** One step of folding. The caller holds the transaction. */
import type { SQL } from "bun";
import { foldedUntil, type LedgerClock } from "../../core/clock.ts";
import {
  type Candidate,
  candidates,
  foldedKeys,
  foldedRows,
  type HourRow,
  planFold,
  stepAccounts,
} from "../../core/fold.ts";
import { lifeOf } from "../../core/life.ts";
import type { Folded } from "../ledger.ts";
import { oldAccounts, readAccounts } from "./accounts.ts";
import { hourColumns, hourIn, setAccounts, setHours, write } from "./statements.ts";

export async function foldSome(sql: SQL, clock: LedgerClock): Promise<Folded> {
  const accounts = await oldAccounts(sql, foldedUntil(clock), stepAccounts);
  const lives = await readAccounts(sql, new Set([...accounts.keys()].map(lifeOf)));
  const chosen = candidates(accounts, lives, clock);
  const plan = planFold(chosen, await hoursOf(sql, chosen), clock);
  await removeHours(sql, plan.removed);
  await setHours(sql, [...plan.emptied, ...foldedRows(await folded(sql, plan.sums), plan.sums)]);
  await removeAccounts(sql, plan.gone);
  await setAccounts(sql, plan.accounts);
  return { accounts: plan.gone.length, postings: plan.removed.length, more: plan.more };
}

const columnsOfHour = hourColumns.replace(/\w+/g, "p.$&");

async function hoursOf(sql: SQL, chosen: readonly Candidate[]): Promise<HourRow[]> {
  const rows = await write(
    sql,
    `WITH r AS MATERIALIZED (
       SELECT * FROM json_to_recordset($1::text::json)
         AS r(account text, tenant text, first_hour bigint, from_hour bigint, until_hour bigint))
     SELECT ${columnsOfHour} FROM r JOIN warren.postings p
       ON p.tenant = r.tenant AND p.account = r.account AND p.hour >= r.from_hour AND p.hour < r.until_hour
     UNION ALL
     SELECT ${columnsOfHour} FROM r JOIN warren.postings p
       ON p.tenant = r.tenant AND p.account = r.account AND p.hour = r.first_hour AND r.first_hour < r.from_hour`,
    chosen.map(({ key, account, fromHour, untilHour }) => ({
      account: key,
      tenant: account.tenant,
      first_hour: account.firstHour,
      from_hour: fromHour,
      until_hour: untilHour,
    })),
  );
  return rows.map(hourIn);
}

/** What is folded of each of these tenants and hours. */
async function folded(sql: SQL, of: readonly HourRow[]): Promise<HourRow[]> {
  const rows = await write(
    sql,
    `SELECT ${columnsOfHour} FROM json_to_recordset($1::text::json) AS r(hour bigint, tenant text)
     JOIN warren.postings p ON p.tenant = r.tenant AND p.hour = r.hour
       AND p.account >= '${foldedKeys.from}' AND p.account < '${foldedKeys.until}'`,
    of.map(({ hour, tenant }) => ({ hour, tenant })),
  );
  return rows.map(hourIn);
}

const removeHours = (sql: SQL, rows: readonly HourRow[]) =>
  write(
    sql,
    `DELETE FROM warren.postings p
     USING json_to_recordset($1::text::json) AS r(hour bigint, tenant text, account text)
     WHERE p.tenant = r.tenant AND p.hour = r.hour AND p.account = r.account`,
    rows.map(({ hour, tenant, account }) => ({ hour, tenant, account })),
  );

const removeAccounts = (sql: SQL, accounts: readonly string[]) =>
  write(
    sql,
    `DELETE FROM warren.accounts
     USING json_to_recordset($1::text::json) AS r(key text) WHERE account = r.key`,
    accounts.map((key) => ({ key })),
  );
