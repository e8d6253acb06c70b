/** One step of folding. The caller holds the transaction. */
import { foldedUntil, type LedgerClock } from "../../core/clock.ts";
import { candidates, foldedRows, planFold, stepAccounts } from "../../core/fold.ts";
import { lifeOf } from "../../core/life.ts";
import type { Folded } from "../ledger.ts";
import type { Book } from "./book.ts";

export function foldSome(book: Book, clock: LedgerClock): Folded {
  const accounts = book.oldAccounts(foldedUntil(clock), stepAccounts);
  const lives = book.accounts(new Set([...accounts.keys()].map(lifeOf)));
  const chosen = candidates(accounts, lives, clock);
  const plan = planFold(
    chosen,
    chosen.flatMap((candidate) => book.hoursOf(candidate)),
    clock,
  );
  for (const row of plan.removed) book.removeHour(row);
  for (const row of [...plan.emptied, ...foldedRows(book.folded(plan.sums), plan.sums)]) book.setHour(row);
  for (const key of plan.gone) book.removeAccount(key);
  for (const [key, account] of plan.accounts) book.setAccount(key, account);
  return { accounts: plan.gone.length, postings: plan.removed.length, more: plan.more };
}
