/**
 * A real PostgreSQL for tests and benchmarks, with its own cluster in a temporary directory and a port of its own
 * that it keeps over restarts. Nothing of it is synced to disk.
 */
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { SQL } from "bun";

export interface PostgresServer extends AsyncDisposable {
  /** Where it keeps everything. */
  readonly directory: string;
  /** Its processes, now. */
  pids(): number[];
  /** A fresh, empty database: `postgres://user:password@127.0.0.1:port/name`. */
  createDatabase(): Promise<string>;
  /** Ends all of its processes as a crash does, and waits until they are gone. */
  kill9(): Promise<void>;
  /** Starts it again, ending it (kill -9) first if it runs; answers when it takes connections. */
  restart(): Promise<void>;
}

const readyMs = 20_000;
const user = "warren";
const password = "t3st";

/** Where its programs are; nothing if it is not installed. */
export function postgresBinaries(): string | undefined {
  const initdb = Bun.which("initdb");
  if (initdb && Bun.which("postgres")) return join(initdb, "..");
  // Debian keeps them off PATH, by version.
  const debian = "/usr/lib/postgresql";
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : [];
  return versions
    .map((version) => join(debian, version, "bin"))
    .find((path) => existsSync(join(path, "initdb")));
}

/** @throws Error saying what to install when there is no PostgreSQL, or with its log when it does not become ready */
export async function startPostgres(): Promise<PostgresServer> {
  const binaries = postgresBinaries();
  if (!binaries) throw new Error("there is no PostgreSQL: install it (apt-get install postgresql)");
  const cluster = new Cluster(binaries);
  try {
    await cluster.init();
    await cluster.restart();
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
  return cluster;
}

class Cluster implements PostgresServer {
  readonly directory = mkdtempSync(join(tmpdir(), "warren-postgres-"));
  readonly #data = join(this.directory, "data");
  readonly #log = join(this.directory, "log");
  readonly #owner = ownerOfServer();
  #port: number | undefined;
  #server: Bun.Subprocess | undefined;
  #databases = 0;

  constructor(readonly binaries: string) {
    process.on("exit", this.#atExit);
    writeFileSync(this.#log, "");
    if (this.#owner) {
      for (const path of [this.directory, this.#log]) chownSync(path, this.#owner.uid, this.#owner.gid);
    }
  }

  /** Whoever is ended in the middle, by a deadline say, leaves nothing behind either. */
  readonly #atExit = () => {
    this.#server?.kill("SIGKILL");
    rmSync(this.directory, { recursive: true, force: true });
  };

  async init(): Promise<void> {
    const passwordFile = join(this.directory, "password");
    writeFileSync(passwordFile, `${password}\n`);
    const options = [
      `--pgdata=${this.#data}`,
      `--username=${user}`,
      `--pwfile=${passwordFile}`,
      "--auth=scram-sha-256",
      "--encoding=UTF8",
      "--locale=C",
      "--no-sync",
    ];
    const initdb = this.#spawn("initdb", options);
    if ((await initdb.exited) !== 0) throw new Error(`initdb failed:\n${readFileSync(this.#log, "utf8")}`);
  }

  async restart(): Promise<void> {
    await this.kill9();
    this.#port ??= freePort();
    const options = [
      ["listen_addresses", "127.0.0.1"],
      ["port", `${this.#port}`],
      ["unix_socket_directories", ""],
      ["fsync", "off"],
      ["max_connections", "50"],
    ];
    this.#server = this.#spawn("postgres", [
      `-D${this.#data}`,
      ...options.map(([name, value]) => `-c${name}=${value}`),
    ]);
    const server = this.#server;
    await waitUntil(
      async () => {
        if (server.exitCode !== null) {
          throw new Error(`postgres ended:\n${readFileSync(this.#log, "utf8").slice(-4_000)}`);
        }
        return await this.#admin((sql) => sql`SELECT 1`).then(
          () => true,
          () => false,
        );
      },
      { deadlineMs: readyMs, what: "PostgreSQL" },
    );
  }

  pids(): number[] {
    return this.#server ? [this.#server.pid, ...childrenOf(this.#server.pid)] : [];
  }

  async createDatabase(): Promise<string> {
    const name = `ledger_${++this.#databases}`;
    await this.#admin((sql) => sql.unsafe(`CREATE DATABASE ${name}`));
    return this.#url(name);
  }

  async kill9(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    const pids = this.pids();
    for (const pid of pids) killQuietly(pid);
    await server.exited;
    await waitUntil(() => pids.every((pid) => !isAlive(pid)), { deadlineMs: readyMs, what: "its end" });
    this.#server = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill9();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #url(database: string): string {
    return `postgres://${user}:${password}@127.0.0.1:${this.#port}/${database}`;
  }

  async #admin(run: (sql: SQL) => Promise<unknown>): Promise<void> {
    const sql = new SQL(this.#url("postgres"), { max: 1, connectionTimeout: 2 });
    try {
      await run(sql);
    } finally {
      await sql.close({ timeout: 0 });
    }
  }

  #spawn(program: string, options: string[]): Bun.Subprocess {
    const log = Bun.file(this.#log);
    return Bun.spawn([join(this.binaries, program), ...options], {
      cwd: this.directory,
      stdio: ["ignore", log, log],
      ...this.#owner,
    });
  }
}

/** It refuses to run as root: then as its own user. */
function ownerOfServer(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const line = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((entry) => entry.startsWith("postgres:"));
  const [, , uid, gid] = line?.split(":") ?? [];
  if (uid === undefined || gid === undefined) throw new Error("there is no user postgres to run it as");
  return { uid: Number(uid), gid: Number(gid) };
}

function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

function childrenOf(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8").split(" ").filter(Boolean).map(Number);
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone by itself.
  }
}

/** A zombie that its new parent has not reaped yet is gone. */
function isAlive(pid: number): boolean {
  try {
    statSync(`/proc/${pid}`);
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.[0] !== "Z";
  } catch {
    return false;
  }
}
