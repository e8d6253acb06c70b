/** How an agent is told what it is. */
import { existsSync, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { isKey, keyRule } from "@warren/common/ids";
import type { Logger } from "@warren/common/log";
import { ports, tenantPorts } from "@warren/common/ports";
import type { Credentials } from "@warren/common/rpc/credentials";
import { AgentStartError } from "./errors.ts";
import { defaultLogBounds, type LogBounds } from "./logs.ts";
import type { PortRange } from "./ports.ts";
import { defaultReleaseBounds, type ReleaseBounds } from "./releases.ts";

export interface AgentOptions {
  /** The node's name, a DNS label; one agent per node. */
  readonly node: string;
  /**
   * Absolute directory for what must outlive the agent but not the host's boot: `/run/warren/<node>`. Made with mode
   * 0700, and locked: a second agent on it refuses to start.
   */
  readonly runtimeDirectory: string;
  /** Unpacked releases; default `<runtimeDirectory>/releases`. Give a disk where /run is memory. */
  readonly cacheDirectory?: string;
  /** "https://host:port" of the scheduler. */
  readonly schedulerUrl: string;
  /** Of role agent; with certificate and key, since the agent serves too. */
  readonly credentials: Credentials;
  /** Address that AgentService listens on; default 127.0.0.1. */
  readonly host?: string;
  /** Port of AgentService; default 7421, 0 takes any free one. */
  readonly port?: number;
  /** "https://host:port" by which the scheduler reaches AgentService; default: the address it listens on. */
  readonly advertiseUrl?: string;
  readonly capacity: {
    /** Memory for tenants, in bytes. */
    readonly memoryBytes: number;
    /** CPU for tenants, in thousandths of a core. */
    readonly cpuMillis: number;
    /** Most instances at once, held by the agent too; 0 means no bound of its own. */
    readonly maxInstances: number;
  };
  readonly labels?: Readonly<Record<string, string>>;
  /** Ports for tenants, both ends included; default 20000 to 32767. Agents on one host may share a range. */
  readonly tenantPorts?: PortRange;
  /** Run tenants from directories of this host (development); default false. */
  readonly allowDirectories?: boolean;
  /** What becomes of the tenants when the agent stops: they stay for the next agent, or are stopped; default "keep". */
  readonly onStop?: "keep" | "stop";
  /** Between two looks at an instance's use, ms; default 1000. */
  readonly observeIntervalMs?: number;
  /** Between two usage records of an instance, ms; default 5000. */
  readonly usageIntervalMs?: number;
  /** The Bun that tenants run on; default the environment variable WARREN_BUN, else this executable. */
  readonly bunPath?: string;
  /** Unpacked releases kept on the node, in bytes; default 10 GiB. Those in use are kept beyond it. */
  readonly releaseCacheBytes?: number;
  /** Other bounds on releases, for tests and unusual hosts. */
  readonly releaseBounds?: Partial<ReleaseBounds>;
  /** Starts at once; default 4. */
  readonly simultaneousStarts?: number;
  /** Records kept for a scheduler that does not take them; default 20000. */
  readonly spoolRecords?: number;
  readonly logBounds?: Partial<LogBounds>;
  /** "none" does without cgroups even where there are some; default "auto". */
  readonly cgroups?: "auto" | "none";
  /** Version of Warren, as it is told the scheduler; default "dev". */
  readonly version?: string;
  /** Default: a pino logger of process "agent" on stderr. */
  readonly log?: Logger;
}

/** The options with every default in its place. */
export interface ResolvedOptions {
  readonly node: string;
  readonly paths: Paths;
  readonly schedulerUrl: string;
  readonly credentials: Credentials;
  readonly host: string;
  readonly port: number;
  readonly advertiseUrl: string | undefined;
  readonly capacity: AgentOptions["capacity"];
  readonly labels: Readonly<Record<string, string>>;
  readonly tenantPorts: PortRange;
  readonly allowDirectories: boolean;
  readonly onStop: "keep" | "stop";
  readonly observeIntervalMs: number;
  readonly usageIntervalMs: number;
  readonly bunPath: string;
  readonly releaseBounds: ReleaseBounds;
  readonly simultaneousStarts: number;
  readonly spoolRecords: number;
  readonly logBounds: LogBounds;
  readonly cgroups: "auto" | "none";
  readonly version: string;
}

/** Where things are in the runtime directory. */
export interface Paths {
  readonly root: string;
  readonly records: string;
  readonly homes: string;
  readonly logs: string;
  readonly releases: string;
  readonly bin: string;
  readonly spool: string;
  readonly ended: string;
  readonly epoch: string;
}

/** Shorter names for long paths: a unix socket in a tenant's TMPDIR must fit into 108 bytes. */
const longestRuntimeDirectory = 200;

/** @throws AgentStartError naming the option and what is wrong with it */
export function resolveOptions(options: AgentOptions): ResolvedOptions {
  const bad = (option: string, why: string) => new AgentStartError(`${option}: ${why}`);
  if (!isKey(options.node)) throw bad("node", `${JSON.stringify(options.node)} ${keyRule}`);
  const root = options.runtimeDirectory;
  if (!isAbsolute(root)) throw bad("runtimeDirectory", `${root} must be an absolute path`);
  if (root.length > longestRuntimeDirectory) {
    throw bad("runtimeDirectory", `${root} is longer than ${longestRuntimeDirectory} characters`);
  }
  if (!URL.canParse(options.schedulerUrl) || new URL(options.schedulerUrl).protocol !== "https:") {
    throw bad("schedulerUrl", `${options.schedulerUrl} must be https://host:port`);
  }
  const bunPath = options.bunPath ?? (process.env.WARREN_BUN || process.execPath);
  if (!existsSync(bunPath) || !statSync(bunPath).isFile()) throw bad("bunPath", `there is no ${bunPath}`);
  const positive = (option: string, value: number): number => {
    if (!(value > 0)) throw bad(option, `${value} must be more than 0`);
    return value;
  };
  const { memoryBytes, cpuMillis, maxInstances } = options.capacity;
  if (![memoryBytes, cpuMillis, maxInstances].every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw bad("capacity", "must be whole numbers, 0 or more");
  }
  return {
    node: options.node,
    paths: {
      root,
      records: join(root, "instances"),
      homes: join(root, "homes"),
      logs: join(root, "logs"),
      releases: options.cacheDirectory ?? join(root, "releases"),
      bin: join(root, "bin"),
      spool: join(root, "spool.jsonl"),
      ended: join(root, "ended.jsonl"),
      epoch: join(root, "epoch"),
    },
    schedulerUrl: options.schedulerUrl,
    credentials: options.credentials,
    host: options.host ?? "127.0.0.1",
    port: options.port ?? ports.agent,
    advertiseUrl: options.advertiseUrl,
    capacity: options.capacity,
    labels: options.labels ?? {},
    tenantPorts: options.tenantPorts ?? tenantPorts,
    allowDirectories: options.allowDirectories ?? false,
    onStop: options.onStop ?? "keep",
    observeIntervalMs: positive("observeIntervalMs", options.observeIntervalMs ?? 1_000),
    usageIntervalMs: positive("usageIntervalMs", options.usageIntervalMs ?? 5_000),
    bunPath,
    releaseBounds: {
      ...defaultReleaseBounds,
      ...options.releaseBounds,
      ...(options.releaseCacheBytes === undefined ? {} : { cacheBytes: options.releaseCacheBytes }),
    },
    simultaneousStarts: positive("simultaneousStarts", options.simultaneousStarts ?? 4),
    spoolRecords: positive("spoolRecords", options.spoolRecords ?? 20_000),
    logBounds: { ...defaultLogBounds, ...options.logBounds },
    cgroups: options.cgroups ?? "auto",
    version: options.version ?? "dev",
  };
}
