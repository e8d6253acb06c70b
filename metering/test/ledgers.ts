/** Every kind of ledger, for the tests that all of them must pass. */
import { join } from "node:path";
import { isQuick } from "@warren/common/testing/quick";
import type { Ledger } from "../src/ledger/ledger.ts";
import { type LedgerLocation, type LedgerOptions, openLedger } from "../src/ledger/open.ts";
import { postgresBinaries, startPostgres } from "../src/testing/postgres-server.ts";
import { temporaryDirectory } from "./harness.ts";

/** Places of ledgers of one kind, each empty at first. */
export interface Ledgers extends AsyncDisposable {
  /** Opens the ledger of that name, as a process that starts does. */
  open(name: string, options?: LedgerOptions): Promise<Ledger>;
  /** Where it lies. */
  at(name: string): Promise<LedgerLocation>;
}

async function files(): Promise<Ledgers> {
  const temporary = temporaryDirectory();
  const at = async (name: string) => ({ stateDirectory: join(temporary.path, name) });
  return {
    at,
    open: async (name, options) => openLedger({ ...(await at(name)), ...options }),
    [Symbol.asyncDispose]: async () => temporary[Symbol.dispose](),
  };
}

async function databases(): Promise<Ledgers> {
  const server = await startPostgres();
  const urls = new Map<string, Promise<string>>();
  const at = async (name: string) => {
    const url = urls.get(name) ?? server.createDatabase();
    urls.set(name, url);
    return { ledgerUrl: await url };
  };
  return {
    at,
    open: async (name, options) => openLedger({ ...(await at(name)), ...options }),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** The quick gate leaves it to CI; a machine without it skips it by name. */
export const hasPostgres = !isQuick && postgresBinaries() !== undefined;

export const ledgerKinds = [
  { kind: "sqlite", openLedgers: files, here: true },
  { kind: "postgres", openLedgers: databases, here: hasPostgres },
] as const;
