/** What is run for a tenant, and with which environment. */
import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { basename, delimiter, join } from "node:path";
import { findEntry } from "@warren/common/entry";
import { makePrivateDirectory, writeWhole } from "./files.ts";

/**
 * The spec's command, else the app's entry. A file is run as `bun <file>`, without the shell and second process that
 * `bun run` costs.
 * @throws NothingToRunError
 */
export function resolveCommand(directory: string, command: readonly string[], bun: string): string[] {
  if (command.length > 0) return [...command];
  const entry = findEntry(directory);
  switch (entry.kind) {
    case "file":
      return [bun, entry.path];
    case "words": {
      const [program, ...rest] = entry.words;
      return [program === "bun" ? bun : program!, ...rest];
    }
    case "script":
      return [bun, "run", "start"];
  }
}

/** The Bun that tenants run on. */
export interface TenantBun {
  /** Its executable. */
  readonly path: string;
  /** A directory that holds `bun` and `node`, for the front of a tenant's PATH. */
  readonly binDirectory: string;
  /** What the executable needs to be Bun. */
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Makes the `bun` that tenants find on their PATH, and a `node` that is the same Bun: a start script that says `node`
 * runs on the same program on every node, whether its host has Node or not. Bun behaves as Node does by the name that
 * it is called by.
 * @param compiled whether the executable is Warren itself, which is Bun only when told so
 */
export function prepareBun(binDirectory: string, path: string, compiled = isCompiled(path)): TenantBun {
  makePrivateDirectory(binDirectory);
  for (const name of ["bun", "node"]) {
    const link = join(binDirectory, name);
    rmSync(link, { force: true });
    if (compiled) {
      const target = name === "bun" ? path : calledBy(name, binDirectory, path);
      writeWhole(link, `#!/bin/sh\nBUN_BE_BUN=1 exec '${target.replaceAll("'", "'\\''")}' "$@"\n`);
      chmodSync(link, 0o755);
    } else {
      symlinkSync(path, link);
    }
  }
  return { path, binDirectory, env: compiled ? { BUN_BE_BUN: "1" } : {} };
}

/** The executable by another name, beside the wrapper that has that name on the PATH. */
function calledBy(name: string, binDirectory: string, path: string): string {
  const directory = join(binDirectory, "named");
  makePrivateDirectory(directory);
  chmodSync(directory, 0o711);
  const link = join(directory, name);
  rmSync(link, { force: true });
  symlinkSync(path, link);
  return link;
}

/**
 * The same Bun where other users can reach it: a copy beside its wrapper, which costs nothing where the file system
 * can share blocks. All tenants run the same file, so that they share its pages.
 */
export function placeBun(bun: TenantBun): TenantBun {
  const { size, mtimeMs } = statSync(bun.path);
  const path = join(bun.binDirectory, `bun-${size.toString(36)}-${Math.round(mtimeMs).toString(36)}`);
  if (!existsSync(path)) {
    const next = `${path}.new`;
    rmSync(next, { force: true });
    copyFileSync(bun.path, next, constants.COPYFILE_FICLONE);
    chmodSync(next, 0o755);
    renameSync(next, path);
  }
  return prepareBun(bun.binDirectory, path, bun.env.BUN_BE_BUN !== undefined);
}

function isCompiled(path: string): boolean {
  return path === process.execPath && !/^bun(-\w+)?(\.exe)?$/.test(basename(path));
}

const systemPath = ["/usr/local/bin", "/usr/bin", "/bin"];

/** Everything but the tenant's own variables that a tenant is told. */
export interface EnvironmentFacts {
  readonly env: Readonly<Record<string, string>>;
  /** Which address it is to listen on. */
  readonly host: string;
  readonly port: number;
  /** Other instances of the tenant listen on the port too. */
  readonly sharesPort: boolean;
  readonly instance: string;
  readonly tenant: string;
  readonly node: string;
  readonly home: string;
  readonly tmp: string;
  /** Where Bun keeps what it has transpiled. */
  readonly cache: string | undefined;
  /** By which it can talk to the agent. */
  readonly socket: string | undefined;
  /** Longest silence between its heartbeats that is healthy; 0 where none are expected. */
  readonly heartbeatMs: number;
  readonly traceparent: string | undefined;
  readonly bun: TenantBun;
}

/**
 * The tenant's whole environment: what its spec gives, over a few defaults, under what it may not change. Nothing of
 * the agent's own environment is in it (rule 6).
 */
export function tenantEnvironment(facts: EnvironmentFacts): Record<string, string> {
  const environment: Record<string, string> = {
    PATH: [facts.bun.binDirectory, ...systemPath.filter((path) => existsSync(path))].join(delimiter),
    HOME: facts.home,
    TMPDIR: facts.tmp,
    NODE_ENV: "production",
    ...(facts.cache === undefined ? {} : { BUN_RUNTIME_TRANSPILER_CACHE_PATH: facts.cache }),
    ...(facts.traceparent ? { TRACEPARENT: facts.traceparent } : {}),
    ...facts.bun.env,
    ...facts.env,
    PORT: String(facts.port),
    HOST: facts.host,
    WARREN_TENANT: facts.tenant,
    WARREN_INSTANCE: facts.instance,
    WARREN_NODE: facts.node,
    ...(facts.socket ? { WARREN_SOCKET: facts.socket } : {}),
    ...(facts.heartbeatMs > 0 ? { WARREN_HEARTBEAT_MS: String(facts.heartbeatMs) } : {}),
    ...(facts.sharesPort ? { WARREN_REUSE_PORT: "1" } : {}),
  };
  // First, where it is found by reading little: it marks the processes of the instance.
  return { WARREN_INSTANCE: facts.instance, ...environment };
}
