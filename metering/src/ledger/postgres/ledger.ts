/** The ledger in a PostgreSQL, for a fleet: schema `warren` of a database in which one process counts at a time. */
import type { StoredRecord } from "@warren/store";
import type { SQL } from "bun";
import { defaultFoldAfter } from "../../core/clock.ts";
import { countBatch, type Quarantined, type Run, readBatch } from "../../core/count.ts";
import { mostRuns } from "../../core/seen.ts";
import { alertsKeptMs } from "../alerts.ts";
import {
  type AlertMark,
  type Counting,
  type Folded,
  isNotEmpty,
  type Ledger,
  type Position,
  type UsageQuery,
  type UsageRow,
} from "../ledger.ts";
import { quarantineRows } from "../quarantine.ts";
import type { LedgerRow } from "../rows.ts";
import { readAccounts } from "./accounts.ts";
import { addAlerts } from "./alerts.ts";
import { readClock, setClock } from "./clock.ts";
import { PostgresConnection } from "./connection.ts";
import { foldSome } from "./fold.ts";
import { writeRows } from "./rows.ts";
import {
  addPostings,
  addQuarantineCounts,
  addQuarantined,
  setAccounts,
  setPositions,
  setRuns,
} from "./statements.ts";
import { readTenants, readUsage } from "./usage.ts";

/** Of the records put in quarantine by one statement, in bytes; one record may be more. */
const quarantineBytes = 4 * 1024 * 1024;

/** Of a restore, in ms: some ten million rows. */
const restoreMs = 3_600_000;

export class PostgresLedger implements Ledger {
  readonly #connection: PostgresConnection;
  readonly #foldAfter: number;

  private constructor(connection: PostgresConnection, foldAfter: number) {
    this.#connection = connection;
    this.#foldAfter = foldAfter;
  }

  /**
   * Opens the ledger in that database, making its schema if there is none.
   * @param url postgres://user:password@host:port/database
   * @param foldAfter see {@link LedgerClock}
   * @throws what {@link PostgresConnection.open} throws
   */
  static async open(url: string, foldAfter = defaultFoldAfter): Promise<PostgresLedger> {
    return new PostgresLedger(await PostgresConnection.open(url), foldAfter);
  }

  async count(source: string, records: readonly StoredRecord[]): Promise<Counting> {
    const batch = readBatch(records);
    return this.#connection.transaction(async (sql) => {
      const standing = {
        accounts: await readAccounts(sql, batch.accounts),
        runs: await runs(sql, batch.runs),
        clock: await readClock(sql, this.#foldAfter),
      };
      const counted = countBatch(batch, standing);
      if (counted.clock !== standing.clock) await setClock(sql, counted.clock);
      await setAccounts(sql, counted.accounts);
      await addPostings(sql, counted.postings);
      await setRuns(
        sql,
        [...counted.runs].map(([run, rest]) => ({ run, ...rest })),
      );
      if (counted.runs.size > standing.runs.size) await trimRuns(sql);
      const newlyQuarantined = await quarantine(sql, source, counted.quarantined);
      const last = records.at(-1);
      if (last) await setPositions(sql, [{ source, seq: last.seq, recordId: last.id }]);
      return { ...counted, newlyQuarantined };
    });
  }

  fold(): Promise<Folded> {
    return this.#connection.transaction(async (sql) => foldSome(sql, await readClock(sql, this.#foldAfter)));
  }

  async position(source: string): Promise<Position | undefined> {
    const [row] = await this.#connection.read(
      (sql) => sql`SELECT seq, record_id FROM warren.positions WHERE source = ${source}`,
    );
    return row ? { seq: BigInt(row.seq), recordId: row.record_id } : undefined;
  }

  usage(query: UsageQuery): Promise<UsageRow[]> {
    return this.#connection.read((sql) => readUsage(sql, query));
  }

  tenants(after: string, limit: number): Promise<string[]> {
    return this.#connection.read((sql) => readTenants(sql, after, limit));
  }

  async alerts(month: number): Promise<AlertMark[]> {
    const rows: AlertMark[] = await this.#connection.read(
      (sql) => sql`SELECT tenant, percent FROM warren.alerts WHERE month = ${month}`,
    );
    return rows.map(({ tenant, percent }) => ({ tenant, percent }));
  }

  markAlerts(month: number, marks: readonly AlertMark[]): Promise<void> {
    return this.#connection.transaction(async (sql) => {
      await sql`DELETE FROM warren.alerts WHERE month < ${month - alertsKeptMs}`;
      await addAlerts(
        sql,
        marks.map((mark) => ({ month, ...mark })),
      );
    });
  }

  async quarantineCounts(): Promise<ReadonlyMap<string, number>> {
    const rows: { kind: string; n: bigint }[] = await this.#connection.read(
      (sql) => sql`SELECT kind, n FROM warren.quarantine_counts`,
    );
    return new Map(rows.map(({ kind, n }) => [kind, Number(n)]));
  }

  async missing(): Promise<number> {
    const [row] = await this.#connection.read(
      (sql) => sql`SELECT coalesce(sum(missing), 0) AS n FROM warren.runs`,
    );
    return Number(row.n);
  }

  async restore(rows: AsyncIterable<LedgerRow>): Promise<void> {
    await this.#connection.transaction(async (sql) => {
      const [{ used }] = await sql`
        SELECT EXISTS (SELECT FROM warren.accounts) OR EXISTS (SELECT FROM warren.positions) AS used`;
      if (used) throw isNotEmpty(this.#connection.shown);
      await writeRows(sql, rows);
    }, restoreMs);
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A row of the runs, as the driver gives it. */
interface FoundRun {
  readonly run: string;
  readonly ranges: string;
  readonly missing: bigint;
  readonly last_at: bigint;
}

async function runs(sql: SQL, names: ReadonlySet<string>): Promise<Map<string, Run>> {
  if (names.size === 0) return new Map();
  const rows: FoundRun[] = await sql.unsafe(
    `SELECT run, ranges, missing, last_at FROM warren.runs
     WHERE run IN (SELECT json_array_elements_text($1::text::json))`,
    [JSON.stringify([...names])],
  );
  return new Map(
    rows.map(({ run, ranges, missing, last_at }) => [
      run,
      { ranges, missing: Number(missing), lastAt: Number(last_at) },
    ]),
  );
}

async function trimRuns(sql: SQL): Promise<void> {
  await sql`DELETE FROM warren.runs
    WHERE run IN (SELECT run FROM warren.runs ORDER BY last_at DESC, run DESC OFFSET ${mostRuns})`;
}

/** @returns how many of them are new */
async function quarantine(sql: SQL, source: string, quarantined: readonly Quarantined[]): Promise<number> {
  const counts = new Map<string, number>();
  let added = 0;
  for (const some of portions(quarantined)) {
    const kinds = await addQuarantined(
      sql,
      some.map(({ kind, reason, record: { id, headers, ...record } }) => ({
        ...record,
        recordId: id,
        headers: JSON.stringify(headers),
        kind,
        reason,
        source,
      })),
    );
    added += kinds.length;
    for (const kind of kinds) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  if (added === 0) return 0;
  await addQuarantineCounts(sql, counts);
  await sql`DELETE FROM warren.quarantine
    WHERE n <= (SELECT n FROM warren.quarantine ORDER BY n DESC OFFSET ${quarantineRows} LIMIT 1)`;
  return added;
}

function* portions(quarantined: readonly Quarantined[]): Generator<Quarantined[]> {
  let some: Quarantined[] = [];
  let bytes = 0;
  for (const one of quarantined) {
    some.push(one);
    bytes += one.record.data.byteLength;
    if (bytes < quarantineBytes) continue;
    yield some;
    some = [];
    bytes = 0;
  }
  if (some.length > 0) yield some;
}
