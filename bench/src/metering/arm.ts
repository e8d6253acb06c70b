/** One way from a publisher to a committed ledger: which journal, which ledger; each round on fresh ones. */
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectRpc } from "@warren/common/rpc/client";
import { pause } from "@warren/common/time";
import { openCellSecrets } from "@warren/common/tls/cell";
import { postgresBinaries, startPostgres } from "@warren/metering/testing/postgres-server";
import { Role } from "@warren/proto/common";
import { MeteringService } from "@warren/proto/metering";
import { openStore } from "@warren/store";
import { startNatsServer } from "@warren/store/testing/nats-server";
import { FleetProcess } from "@warren/test/fleet";
import { cpuMs } from "../harness/procfs.ts";
import type { Arm } from "../harness/rounds.ts";
import { batches, type Load } from "./events.ts";

export const hasPostgres = postgresBinaries() !== undefined;

export interface Route {
  readonly journal: "embedded" | "nats";
  readonly ledger: "sqlite" | "postgres";
  /** The ledger is started when all is published: how fast it catches up. */
  readonly late?: boolean;
}

/** Appends under way at once, as from as many nodes. */
const inFlight = 8;
const patienceMs = 300_000;

export function armOf(route: Route, load: Load, signal: AbortSignal): Arm {
  return async () => {
    await using resources = new AsyncDisposableStack();
    const root = mkdtempSync(join(tmpdir(), "warren-bench-metering-"));
    resources.defer(() => rmSync(root, { recursive: true, force: true }));
    const nats = route.journal === "nats" ? resources.use(await startNatsServer()) : undefined;
    const postgres = route.ledger === "postgres" ? resources.use(await startPostgres()) : undefined;
    const directory = join(root, "scheduler");
    const store = resources.use(await openStore({ url: nats?.url, directory, cell: "bench" }));
    const secrets = await openCellSecrets(join(root, "credentials"), "bench");
    const own = await secrets.credentialsFor("metering", Role.METERING);
    const client = await secrets.credentialsFor("client", Role.CLIENT);
    const metering = new FleetProcess("metering", root, [
      ...["metering", "--state", join(root, "ledger"), "--credentials", own.directory],
      ...(nats ? ["--nats", nats.url] : ["--journal", directory]),
      ...(postgres ? ["--ledger", await postgres.createDatabase()] : []),
    ]);
    resources.defer(() => metering.stop());
    const made = [...batches(load)]; // encoding is the scheduler's work, not the ledger's
    const events = made.reduce((sum, batch) => sum + batch.length, 0);
    if (!route.late) await metering.start();
    const journalAt = nats ? nats.directory : directory;
    const ledgerAt = postgres ? postgres.directory : join(root, "ledger");
    const before = { journal: await sizeOf(journalAt), ledger: await sizeOf(ledgerAt) };
    const begun = performance.now();
    const lane = async () => {
      for (let batch = made.shift(); batch; batch = made.shift()) {
        signal.throwIfAborted();
        await store.journal.append(batch, { deadlineMs: 60_000 });
      }
    };
    await Promise.all(Array.from({ length: inFlight }, lane));
    const published = performance.now();
    const last = await store.journal.lastSeq();
    if (route.late) await metering.start();
    const connection = connectRpc({ url: metering.url, credentials: client.credentials });
    resources.defer(() => connection.close());
    const from = route.late ? performance.now() : begun;
    for (const until = from + patienceMs; ; await pause(20, signal)) {
      signal.throwIfAborted();
      const answer = await connection.client(MeteringService).getUsage({ tenant: "nobody" });
      if (answer.journalSeq >= last) break;
      if (performance.now() > until)
        throw new Error(`${events} events were not counted within ${patienceMs} ms`);
    }
    const ms = performance.now() - from;
    const million = 1_000_000 / events;
    return {
      perSecond: (events / ms) * 1_000,
      publishedPerSecond: (events / (published - begun)) * 1_000,
      ledgerCpuMs: cpuMs(metering.pid ?? 0) * million,
      natsCpuMs: nats?.pid ? cpuMs(nats.pid) * million : 0,
      postgresCpuMs: (postgres?.pids() ?? []).reduce((sum, pid) => sum + cpuMs(pid), 0) * million,
      journalBytes: ((await sizeOf(journalAt)) - before.journal) * million,
      ledgerBytes: ((await sizeOf(ledgerAt)) - before.ledger) * million,
    };
  };
}

/** Bytes of all files below it. */
async function sizeOf(directory: string): Promise<number> {
  if (!existsSync(directory)) return 0;
  let bytes = 0;
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    try {
      if (entry.isFile()) bytes += statSync(join(entry.parentPath, entry.name)).blocks * 512;
    } catch {
      // gone meanwhile
    }
  }
  return bytes;
}
