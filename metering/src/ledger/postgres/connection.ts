/**
 * How the ledger reaches its PostgreSQL. One session counts, and holds an advisory lock for as long as it lives: two
 * processes never count in one database, since whoever lost its session (a killed server, a cut network) counts nothing
 * more before it has the lock again. Others read, over a small pool.
 */
import { ConfigError } from "@warren/common/config";
import { pause, withDeadline } from "@warren/common/time";
import { StoreLockedError, StoreMismatchError, StoreUnavailableError } from "@warren/store";
import { type ReservedSQL, SQL, type TransactionSQL } from "bun";
import { checkSchema, isCurrent, prepareSchema } from "./schema.ts";

/** "WARM", as in the file's header; advisory locks are of one database. */
const lockKey = 0x5741524d;

/** All in ms, unless they say otherwise. */
const times = {
  /** To connect, in s. */
  connectS: 5,
  /** How long one that holds the lock may take to let go of it. */
  lockMs: 5_000,
  /** Of one statement, held by the server; and of one transaction or query, held here, should the network be silent. */
  statementMs: 20_000,
  workMs: 30_000,
  /** Of bringing a large ledger of an earlier version to this one: some ten million postings. */
  prepareMs: 600_000,
  /** Of an idle connection for reading, in s. */
  idleS: 60,
} as const;

const readers = 4;

/** What a session of ours asks of the server. */
const sessionSettings = {
  application_name: "warren-metering",
  statement_timeout: `${times.statementMs}`,
  lock_timeout: "5000",
  idle_in_transaction_session_timeout: "30000",
  // A session whose client is gone without a word gives the lock back after some 20 s.
  tcp_keepalives_idle: "10",
  tcp_keepalives_interval: "3",
  tcp_keepalives_count: "3",
} as const;

export class PostgresConnection {
  readonly #url: string;
  /** For messages: without credentials. */
  readonly shown: string;
  readonly #readers: SQL;
  #writer: { pool: SQL; session: ReservedSQL } | undefined;

  private constructor(url: string, shown: string) {
    this.#url = withTls(url);
    this.shown = shown;
    this.#readers = this.#pool(readers);
  }

  /**
   * @throws ConfigError when it is no URL of a PostgreSQL
   * @throws StoreUnavailableError when there is none, or it refuses us
   * @throws StoreLockedError when another process counts in this database
   * @throws StoreMismatchError when it holds a newer ledger, or none
   */
  static async open(url: string): Promise<PostgresConnection> {
    const connection = new PostgresConnection(url, shownUrl(url));
    try {
      await connection.#session();
      return connection;
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  /**
   * Runs it in one transaction of the session that holds the lock. After any failure the session is given up: it may be
   * broken, and a new one costs little.
   * @param ms how long it may take; default 30 s
   * @throws StoreUnavailableError what was done is undone, or (after a lost connection) unknown
   */
  async transaction<T>(work: (sql: TransactionSQL) => Promise<T>, ms: number = times.workMs): Promise<T> {
    const { session } = await this.#session();
    try {
      return await withDeadline(session.begin(work), ms, "the transaction");
    } catch (error) {
      await this.#drop();
      throw this.#unavailable(error);
    }
  }

  /** @throws StoreUnavailableError */
  async read<T>(work: (sql: SQL) => Promise<T>): Promise<T> {
    try {
      return await withDeadline(work(this.#readers), times.workMs, "the query");
    } catch (error) {
      throw this.#unavailable(error);
    }
  }

  /**
   * What it yields in a transaction that sees the ledger as it stands now, while others count. Takes no lock.
   * @throws ConfigError, StoreUnavailableError
   * @throws StoreMismatchError when there is no ledger of this version
   */
  static async *snapshot<T>(
    url: string,
    work: (sql: ReservedSQL) => AsyncIterable<T>,
  ): AsyncGenerator<T, void, undefined> {
    const connection = new PostgresConnection(url, shownUrl(url));
    const pool = connection.#pool(1);
    try {
      const session = await pool.reserve();
      await session.unsafe("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      // Whoever takes the rows may take his time.
      await session.unsafe("SET LOCAL idle_in_transaction_session_timeout = '10min'");
      await checkSchema(session, connection.shown);
      yield* work(session);
    } catch (error) {
      throw connection.#unavailable(error);
    } finally {
      await closeQuietly(pool);
      await connection.close();
    }
  }

  async close(): Promise<void> {
    await this.#drop();
    await closeQuietly(this.#readers);
  }

  async #session(): Promise<{ pool: SQL; session: ReservedSQL }> {
    if (this.#writer) return this.#writer;
    const pool = this.#pool(1);
    try {
      const { session, current } = await withDeadline(this.#locked(pool), times.workMs, "connecting");
      if (!current) await withDeadline(prepareSchema(session, this.shown), times.prepareMs, "preparing it");
      this.#writer = { pool, session };
      return this.#writer;
    } catch (error) {
      await closeQuietly(pool);
      throw this.#unavailable(error);
    }
  }

  async #locked(pool: SQL): Promise<{ session: ReservedSQL; current: boolean }> {
    const session = await pool.reserve();
    await this.#lock(session);
    return { session, current: await isCurrent(session, this.shown) };
  }

  async #lock(session: ReservedSQL): Promise<void> {
    const begun = performance.now();
    for (;;) {
      const [{ got }] = await session`SELECT pg_try_advisory_lock(${lockKey}) AS got`;
      if (got) return;
      if (performance.now() - begun > times.lockMs) break;
      await pause(100);
    }
    const [holder] = await session`
      SELECT application_name AS name, host(client_addr) AS address, backend_start AS since
      FROM pg_locks JOIN pg_stat_activity USING (pid)
      WHERE locktype = 'advisory' AND objid = ${lockKey} AND datname = current_database() AND granted`;
    const who = holder ? ` (${holder.name} from ${holder.address ?? "this host"})` : "";
    throw new StoreLockedError(
      `the ledger ${this.shown} is in use by another process${who}: stop that one first, or give this one a database of its own`,
    );
  }

  async #drop(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    if (writer) await closeQuietly(writer.pool);
  }

  #pool(max: number): SQL {
    return new SQL(this.#url, {
      max,
      bigint: true,
      connectionTimeout: times.connectS,
      // The session that counts holds its lock also while nothing happens.
      idleTimeout: max === 1 ? 0 : times.idleS,
      connection: sessionSettings,
    });
  }

  #unavailable(error: unknown): Error {
    if (error instanceof StoreLockedError || error instanceof StoreMismatchError) return error;
    if (error instanceof StoreUnavailableError) return error;
    return new StoreUnavailableError(`the ledger ${this.shown}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** @throws ConfigError */
function shownUrl(url: string): string {
  const parsed = URL.parse(url);
  if (!parsed || !/^postgres(ql)?:$/.test(parsed.protocol) || parsed.pathname.length < 2) {
    // Not shown: what does not parse may still hold a password.
    throw new ConfigError("the ledger's URL is not postgres://user:password@host:port/database");
  }
  return `postgres://${parsed.host}${parsed.pathname}`;
}

/** Off this host, a connection without TLS (which is the client's default) must be asked for: `?sslmode=disable`. */
export function withTls(url: string): string {
  const parsed = new URL(url);
  const isLocal = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])?$/.test(parsed.hostname);
  if (!isLocal && !parsed.searchParams.has("sslmode")) parsed.searchParams.set("sslmode", "verify-full");
  return parsed.href;
}

async function closeQuietly(pool: SQL): Promise<void> {
  try {
    await withDeadline(pool.close({ timeout: 0 }), 1_000, "closing connections");
  } catch {
    // The server ends them when it notices.
  }
}
