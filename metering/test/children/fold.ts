/** Folds, and says so after each step, until it is killed. */
import { openLedger } from "../../src/ledger/open.ts";

const ledger = await openLedger(JSON.parse(process.argv[2] ?? ""));
for (;;) {
  const { accounts } = await ledger.fold();
  process.stdout.write(`${accounts}\n`);
}
