import { Database } from "bun:sqlite";
import { join } from "node:path";
import { StoreMismatchError } from "../errors.ts";
import { createPrivateFile } from "../files.ts";

/** "WARR": tells a Warren database from any other SQLite file. */
const APPLICATION_ID = 0x57415252;
export const SCHEMA_VERSION = 1;

const SCHEMA = `
  -- AUTOINCREMENT: a sequence is never given twice, even after the newest record was trimmed.
  CREATE TABLE journal (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    headers TEXT NOT NULL,
    data    BLOB NOT NULL,
    at      INTEGER NOT NULL
  );
  -- prev: the last sequence that the append expected, by which its repetition is recognised.
  -- value NULL: a tombstone; only the last append may be one, the next append clears it away.
  CREATE TABLE state (
    key   TEXT PRIMARY KEY,
    value BLOB,
    seq   INTEGER NOT NULL,
    prev  INTEGER NOT NULL
  );
  CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
  INSERT INTO meta VALUES ('epoch', 0), ('state_last_seq', 0);
`;

export function databasePath(directory: string): string {
  return join(directory, "cluster.db");
}

/**
 * Opens the one database for writing, making it if there is none. The caller holds the directory's lock.
 * @throws StoreMismatchError when it is of a newer version, of another cell or not Warren's
 */
export function openDatabase(directory: string, cell: string): Database {
  const path = databasePath(directory);
  createPrivateFile(path); // the -wal and -shm files get the same mode
  const db = new Database(path, { create: false, readwrite: true, strict: true });
  try {
    db.run("PRAGMA busy_timeout = 2000");
    db.run("PRAGMA journal_mode = WAL");
    // FULL syncs the log at every commit. NORMAL already survives kill -9 of every process, but a power failure takes
    // its last commits: placements that agents act on, and events whose producers have deleted them since they were
    // acknowledged. A sync costs 0.3 ms on an SSD, and one commit carries all appends that came in one turn.
    db.run("PRAGMA synchronous = FULL");
    db.run("PRAGMA journal_size_limit = 67108864");
    prepareSchema(db, path, cell);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

function prepareSchema(db: Database, path: string, cell: string): void {
  db.transaction(() => {
    const version = schemaVersion(db, path);
    if (version === 0) {
      db.run(SCHEMA);
      db.query("INSERT INTO meta VALUES ('cell', ?)").run(cell);
      db.run(`PRAGMA application_id = ${APPLICATION_ID}`);
      db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    }
    const stored = db.query<{ value: string }, []>("SELECT value FROM meta WHERE name = 'cell'").get()?.value;
    if (stored !== cell) {
      throw new StoreMismatchError(
        `${path} belongs to the cell "${stored}", not "${cell}": it is left as it is; name the right cell or directory`,
      );
    }
  }).immediate();
}

/**
 * Version of the schema; 0 for a database that nobody has prepared yet.
 * @throws StoreMismatchError when this program cannot use it
 */
export function schemaVersion(db: Database, path: string): number {
  const version = pragma(db, "user_version");
  const application = pragma(db, "application_id");
  const tables = db.query<{ n: number }, []>("SELECT count(*) AS n FROM sqlite_schema").get()?.n ?? 0;
  if (application !== APPLICATION_ID && tables > 0) {
    throw new StoreMismatchError(`${path} is not a Warren database: it is left as it is`);
  }
  if (version > SCHEMA_VERSION) {
    throw new StoreMismatchError(
      `${path} has schema version ${version}, this program knows up to ${SCHEMA_VERSION}: it is left as it is; ` +
        "run the newer Warren that wrote it",
    );
  }
  return version;
}

function pragma(db: Database, name: string): number {
  const row = db.query<Record<string, number>, []>(`PRAGMA ${name}`).get();
  return row?.[name] ?? 0;
}

/** The code of a SQLite error ("SQLITE_BUSY" and the like), if it is one. */
export function sqliteCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && code.startsWith("SQLITE_") ? code : undefined;
}
