/** Every kind of ledger, for the tests that all of them must pass. */
import { join } from "node:path";
import type { Ledger } from "../src/ledger/ledger.ts";
import { PostgresLedger } from "../src/ledger/postgres/ledger.ts";
import { SqliteLedger } from "../src/ledger/sqlite/ledger.ts";
import { startPostgres } from "../src/testing/postgres-server.ts";
import { temporaryDirectory } from "./harness.ts";

/** Places of ledgers of one kind, each empty at first. */
export interface Ledgers extends AsyncDisposable {
  /** Opens the ledger of that name, as a process that starts does. */
  open(name: string): Promise<Ledger>;
}

export const ledgerKinds: Readonly<Record<string, () => Promise<Ledgers>>> = {
  sqlite: async () => {
    const temporary = temporaryDirectory();
    return {
      open: async (name) => SqliteLedger.open(join(temporary.path, name)),
      [Symbol.asyncDispose]: async () => temporary[Symbol.dispose](),
    };
  },
  postgres: async () => {
    const server = await startPostgres();
    const urls = new Map<string, Promise<string>>();
    return {
      open: async (name) => {
        const url = urls.get(name) ?? server.createDatabase();
        urls.set(name, url);
        return PostgresLedger.open(await url);
      },
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  },
};
