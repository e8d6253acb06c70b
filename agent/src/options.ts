/** How an agent is told what it is. */
import { existsSync, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { isKey, keyRule } from "@warren/common/ids";
import type { Logger } from "@warren/common/log";
import { ports, tenantPorts } from "@warren/common/ports";
import type { Credentials } from "@warren/common/rpc/credentials";
import { Isolation } from "@warren/proto/common";
import { loopback } from "./address.ts";
import { AgentStartError } from "./errors.ts";
import type { HostChoice } from "./host/detect.ts";
import type { Kernel } from "./host/kernel.ts";
import { defaultLogBounds, type LogBounds } from "./logs.ts";
import type { ReadinessChooser } from "./mechanism.ts";
import type { PortRange } from "./ports.ts";
import { readinessOf } from "./readiness.ts";
import { defaultReleaseBounds, type ReleaseBounds } from "./releases.ts";
import { defaultUidBase } from "./sandbox.ts";
import { bunSpawner, type Spawner } from "./spawn.ts";

export interface AgentOptions {
  /** The node's name, a DNS label; one agent per node. */
  readonly node: string;
  /**
   * Absolute directory for what must outlive the agent but not the host's boot: `/run/warren/<node>`. Its mode is 0700,
   * or 0711 where tenants have uids of their own, who must reach their files in it (so that the directories above it must
   * let them through). Locked: a second agent on it refuses to start.
   */
  readonly runtimeDirectory: string;
  /** Unpacked releases; default `<runtimeDirectory>/releases`. Give a disk where /run is memory. */
  readonly cacheDirectory?: string;
  /**
   * Tenants' volumes, on a disk that outlives the host's boot; default `<runtimeDirectory>/volumes`, and
   * `/var/lib/warren/volumes/<node>` where that is below /run. One agent's alone.
   */
  readonly volumesDirectory?: string;
  /** Between two records of what a volume holds, ms; default 60000. */
  readonly volumeIntervalMs?: number;
  /** "https://host:port" of the cell's schedulers; any one suffices to find the leader. */
  readonly schedulerUrls: readonly string[];
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
  /**
   * Name or address by which gateways on other hosts reach this node's tenants; a name is looked up once, at the start.
   * Default 127.0.0.1: tenants listen on loopback, for a gateway on this host. With another they are told to listen on
   * all addresses, and whoever can reach their ports can call them: for a network of the cell's own.
   */
  readonly tenantHost?: string;
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
  /** Starts a second, sustained; default 50 for each core of `capacity`, at least 10. */
  readonly startsPerSecond?: number;
  /** Instances that may run at once, held when one is thawed; default 0: no bound of its own. */
  readonly maxActive?: number;
  /** The highest rung of isolation that is offered, of those that work here; default "auto": all of them. */
  readonly isolation?: "auto" | "none" | "user" | "cgroup" | "namespace";
  /** A tenant's uid is this plus a port of its own; default 2,000,000,000. The same for all agents of a host. */
  readonly uidBase?: number;
  /** What starts processes; default: Bun.spawn. */
  readonly spawner?: (kernel: Kernel) => Spawner;
  /** How it is learnt that an instance is ready; default: as its spec says. */
  readonly readiness?: ReadinessChooser;
  /** Records kept for a scheduler that does not take them; default 20000. */
  readonly spoolRecords?: number;
  /** What instances' output may cost; defaults in `logs/bounds.ts`. */
  readonly logBounds?: Partial<LogBounds>;
  /** What of the host is used; default "auto": the best that works. */
  readonly hostKind?: HostChoice;
  /** Version of Warren, as it is told the scheduler; default "dev". */
  readonly version?: string;
  /** Default: a pino logger of process "agent" on stderr. */
  readonly log?: Logger;
}

/** The options with every default in its place. */
export interface ResolvedOptions {
  readonly node: string;
  readonly paths: Paths;
  readonly schedulerUrls: readonly string[];
  readonly credentials: Credentials;
  readonly host: string;
  readonly port: number;
  readonly advertiseUrl: string | undefined;
  readonly capacity: AgentOptions["capacity"];
  readonly labels: Readonly<Record<string, string>>;
  readonly tenantHost: string;
  readonly tenantPorts: PortRange;
  readonly allowDirectories: boolean;
  readonly onStop: "keep" | "stop";
  readonly observeIntervalMs: number;
  readonly usageIntervalMs: number;
  readonly volumeIntervalMs: number;
  readonly bunPath: string;
  readonly releaseBounds: ReleaseBounds;
  readonly simultaneousStarts: number;
  readonly startsPerSecond: number;
  readonly maxActive: number;
  readonly isolation: Isolation;
  readonly uidBase: number;
  readonly spawner: (kernel: Kernel) => Spawner;
  readonly readiness: ReadinessChooser;
  readonly spoolRecords: number;
  readonly logBounds: LogBounds;
  readonly hostKind: HostChoice;
  readonly version: string;
}

/** Where things are in the runtime directory. */
export interface Paths {
  readonly root: string;
  readonly records: string;
  readonly homes: string;
  readonly sockets: string;
  readonly caches: string;
  readonly ballast: string;
  readonly logs: string;
  readonly releases: string;
  /** Views of releases, on the same disk: they are made of hard links. */
  readonly views: string;
  readonly volumes: string;
  readonly bin: string;
  readonly spool: string;
  readonly tallies: string;
  readonly ended: string;
  readonly epoch: string;
}

/** Shorter names for long paths: a unix socket in a tenant's TMPDIR must fit into 108 bytes. */
const longestRuntimeDirectory = 200;

/** A start costs ~10 CPU-ms: half of a core's time, at most. */
const startsPerCoreAndSecond = 50;

const rungs = {
  auto: Isolation.NAMESPACE,
  none: Isolation.NONE,
  user: Isolation.USER,
  cgroup: Isolation.CGROUP,
  namespace: Isolation.NAMESPACE,
} as const;

/** @throws AgentStartError naming the option and what is wrong with it */
export function resolveOptions(options: AgentOptions): ResolvedOptions {
  const bad = (option: string, why: string) => new AgentStartError(`${option}: ${why}`);
  if (!isKey(options.node)) throw bad("node", `${JSON.stringify(options.node)} ${keyRule}`);
  const root = options.runtimeDirectory;
  if (!isAbsolute(root)) throw bad("runtimeDirectory", `${root} must be an absolute path`);
  if (root.length > longestRuntimeDirectory) {
    throw bad("runtimeDirectory", `${root} is longer than ${longestRuntimeDirectory} characters`);
  }
  if (options.schedulerUrls.length === 0) throw bad("schedulerUrls", "there must be one at least");
  for (const url of options.schedulerUrls) {
    if (!URL.canParse(url) || new URL(url).protocol !== "https:")
      throw bad("schedulerUrls", `${url} must be https://host:port`);
  }
  const bunPath = options.bunPath ?? (process.env.WARREN_BUN || process.execPath);
  if (!existsSync(bunPath) || !statSync(bunPath).isFile()) throw bad("bunPath", `there is no ${bunPath}`);
  const positive = (option: string, value: number): number => {
    if (!(value > 0)) throw bad(option, `${value} must be more than 0`);
    return value;
  };
  const durable = /^(\/var)?\/run\//.test(root)
    ? join("/var/lib/warren/volumes", options.node)
    : join(root, "volumes");
  const volumesDirectory = options.volumesDirectory ?? durable;
  if (!isAbsolute(volumesDirectory)) {
    throw bad("volumesDirectory", `${volumesDirectory} must be an absolute path`);
  }
  const logBounds = { ...defaultLogBounds, ...options.logBounds };
  for (const name of ["rawBytes", "fileBytes", "files", "bytesPerSecond", "burstBytes"] as const) {
    positive(`logBounds.${name}`, logBounds[name]);
  }
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
      caches: join(root, "caches"),
      ballast: join(root, "ballast"),
      sockets: join(root, "sock"), // short: a unix socket's path has 107 bytes
      logs: join(root, "logs"),
      releases: options.cacheDirectory ?? join(root, "releases"),
      views: `${options.cacheDirectory ?? join(root, "releases")}.views`,
      volumes: volumesDirectory,
      bin: join(root, "bin"),
      spool: join(root, "spool.jsonl"),
      tallies: join(root, "tallies"),
      ended: join(root, "ended.jsonl"),
      epoch: join(root, "epoch"),
    },
    schedulerUrls: options.schedulerUrls,
    credentials: options.credentials,
    host: options.host ?? loopback,
    port: options.port ?? ports.agent,
    advertiseUrl: options.advertiseUrl,
    capacity: options.capacity,
    labels: options.labels ?? {},
    tenantHost: options.tenantHost ?? loopback,
    tenantPorts: options.tenantPorts ?? tenantPorts,
    allowDirectories: options.allowDirectories ?? false,
    onStop: options.onStop ?? "keep",
    observeIntervalMs: positive("observeIntervalMs", options.observeIntervalMs ?? 1_000),
    usageIntervalMs: positive("usageIntervalMs", options.usageIntervalMs ?? 5_000),
    volumeIntervalMs: positive("volumeIntervalMs", options.volumeIntervalMs ?? 60_000),
    bunPath,
    releaseBounds: {
      ...defaultReleaseBounds,
      ...options.releaseBounds,
      ...(options.releaseCacheBytes === undefined ? {} : { cacheBytes: options.releaseCacheBytes }),
    },
    simultaneousStarts: positive("simultaneousStarts", options.simultaneousStarts ?? 4),
    startsPerSecond: positive(
      "startsPerSecond",
      options.startsPerSecond ?? Math.max(10, Math.round((cpuMillis / 1000) * startsPerCoreAndSecond)),
    ),
    maxActive: options.maxActive ?? 0,
    isolation: rungs[options.isolation ?? "auto"],
    uidBase: options.uidBase ?? defaultUidBase,
    spawner: options.spawner ?? bunSpawner,
    readiness: options.readiness ?? readinessOf,
    spoolRecords: positive("spoolRecords", options.spoolRecords ?? 20_000),
    logBounds,
    hostKind: options.hostKind ?? "auto",
    version: options.version ?? "dev",
  };
}
