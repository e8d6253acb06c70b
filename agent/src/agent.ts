/** Puts an agent together, and takes it apart in reverse; each step has a deadline. */
import { chmodSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ulid } from "@warren/common/ids";
import { createLogger } from "@warren/common/log";
import { connectLeader } from "@warren/common/rpc/leader";
import { type RpcServer, serveRpc } from "@warren/common/rpc/server";
import { systemClock, withDeadline } from "@warren/common/time";
import { AgentService } from "@warren/proto/agent";
import { ExitReason, Isolation } from "@warren/proto/common";
import { addressOf } from "./address.ts";
import { Ballast } from "./ballast.ts";
import { TranspilerCaches } from "./caches.ts";
import { agentClock } from "./clock.ts";
import { prepareBun } from "./command.ts";
import { EndedIds } from "./ended.ts";
import { Fence } from "./fence.ts";
import { makePrivateDirectory, messageOf, removeTree } from "./files.ts";
import { Gate } from "./gate.ts";
import { detectHost } from "./host/detect.ts";
import { ExitWatcher } from "./host/exits.ts";
import { OpenWatcher } from "./host/fanotify.ts";
import { Instances } from "./instances.ts";
import { DirectoryLock } from "./lock.ts";
import { LogStore } from "./logs.ts";
import type { Mechanism } from "./mechanism.ts";
import { agentMetrics } from "./metrics.ts";
import { Observer } from "./observe.ts";
import { type AgentOptions, resolveOptions } from "./options.ts";
import { Ports } from "./ports.ts";
import { ProcessTable } from "./processes.ts";
import { RecordStore } from "./records.ts";
import { ReleaseCache } from "./releases.ts";
import { Reporter } from "./reporter.ts";
import { Sandbox } from "./sandbox.ts";
import { agentService } from "./service.ts";
import { Spool } from "./spool.ts";
import { Tallies } from "./tallies.ts";
import { Snapshots } from "./volumes/snapshots.ts";
import { VolumeStore } from "./volumes/store.ts";

/** A running agent. */
export interface Agent extends AsyncDisposable {
  readonly node: string;
  /** "https://host:port" of AgentService. */
  readonly url: string;
  readonly port: number;
  /** This agent process, a ULID. */
  readonly incarnation: string;
  /** Whether the scheduler has this node in its roster, as far as the agent knows. */
  readonly joined: boolean;
  /** Instances that are not gone. */
  readonly instances: number;
  /**
   * Takes no new command, leaves or stops the tenants as `onStop` says, hands over what it can, and lets go of the
   * runtime directory. Ends within about 20 s plus, where tenants are stopped, the longest grace; never throws for what
   * could not be done in time, but says so in the log. Calling it again joins the first call.
   */
  stop(): Promise<void>;
}

/** A start that hangs no longer keeps others out after this long. */
const gateHoldMs = 1_000;
const serverGraceMs = 1_000;
const flushMs = 2_000;
const stepMs = 5_000;
/** After the longest grace of those that are stopped: SIGKILL needs no more, unless the kernel itself hangs. */
const killMs = 10_000;
/** Beyond the longest drain and grace that a spec may ask for, 10 min each. */
const stopAllMs = 1_220_000;
/** Above the uids, of which there is one per port. */
const firstReleaseGid = 100_000;
/** Told the scheduler: as many as the contract takes. */
const mostMissing = 32;

/**
 * Starts an agent: takes over what one before it left, serves, and joins the scheduler as soon as that is there (a
 * scheduler that is not does not keep the agent from serving).
 * @throws AgentStartError when the options are wrong, the runtime directory is another agent's, or no tenant ports are
 * free
 * @throws ServeError when the RPC port is taken or the credentials are not a server's
 */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const o = resolveOptions(options);
  const log = options.log ?? createLogger({ process: "agent", node: o.node });
  // Whatever was acquired is given back in reverse, when starting fails half-way and when the agent stops.
  const undo: { what: string; run: () => unknown; ms: number }[] = [];
  const unwind = async () => {
    for (let step = undo.pop(); step; step = undo.pop()) {
      try {
        await withDeadline(Promise.resolve(step.run()), step.ms, step.what);
      } catch (error) {
        log.warn({ why: messageOf(error) }, `while stopping: ${step.what}`);
      }
    }
  };
  const later = (what: string, run: () => unknown, ms = stepMs) => {
    undo.push({ what, run, ms });
  };

  try {
    const lock = DirectoryLock.acquire(o.paths.root);
    later("unlocking the runtime directory", () => lock.release());
    const incarnation = ulid();
    const tenantHost = await addressOf(o.tenantHost);
    const fence = new Fence(o.paths.epoch, log);
    const ballast = new Ballast(o.paths.ballast);
    ballast.hold();
    const spool = new Spool(o.paths.spool, log, o.spoolRecords);
    const records = new RecordStore(o.paths.records, log, ballast);
    const opens = OpenWatcher.open();
    if (opens) later("closing the watch of raw files", () => opens[Symbol.dispose]());
    const logs = new LogStore(o.paths.logs, o.logBounds, systemClock, true, opens);
    const host = await detectHost(o.node, o.paths.root, o.hostKind, log);
    later("closing the cgroups", () => host.close());
    const { kernel } = host;
    const directories = [
      o.paths.root,
      o.paths.homes,
      o.paths.sockets,
      o.paths.releases,
      o.paths.views,
      o.paths.bin,
      o.paths.caches,
    ];
    for (const path of directories) makePrivateDirectory(path);
    const tallies = new Tallies(o.paths.tallies, log);
    const found = records.load();
    const left = { ...found, records: tallies.brought(found.records) };
    // Tenants that an agent before this one isolated must reach their files, whatever this one offers.
    const isolates = o.isolation > Isolation.NONE && process.getuid?.() === 0;
    const isShared = isolates || left.records.some((record) => record.uid !== undefined);
    for (const path of directories) chmodSync(path, isShared ? 0o711 : 0o700);
    const sandbox = await Sandbox.probe({
      most: o.isolation,
      host,
      bun: prepareBun(o.paths.bin, o.bunPath),
      homes: o.paths.homes,
      uidBase: o.uidBase,
    });
    const lacks = sandbox.missing.join("; ");
    if (sandbox.highest === Isolation.NONE) log.warn({ lacks }, "tenants are not isolated from each other");
    else log.info({ isolation: sandbox.name, ...(lacks ? { lacks } : {}) }, "tenants are isolated");
    const ended = new EndedIds(o.paths.ended, log);
    const gate = new Gate({
      width: o.simultaneousStarts,
      holdMs: gateHoldMs,
      perSecond: o.startsPerSecond,
    });
    const exits = new ExitWatcher(kernel);
    later("closing the exit watcher", () => exits[Symbol.dispose]());
    const portsBefore = left.records.map(({ port }) => port);
    const survivors = () => kernel.list().map(({ pid }) => (kernel.uid(pid) ?? 0) - o.uidBase);
    const tenantPorts = Ports.open(o.tenantPorts, portsBefore, survivors);
    later("giving back the tenant ports", () => tenantPorts[Symbol.dispose]());
    const abandon = new AbortController();
    later("leaving what still ends to the next agent", () => {
      abandon.abort();
      for (const instance of instances.all()) instance.letGo();
    });

    const metrics = agentMetrics({
      instances: () => instances.size,
      frozen: () => instances.all().filter((instance) => instance.isAtRest).length,
      spooled: () => spool.size,
      waitingStarts: () => gate.waiting,
      epoch: () => Number(fence.highest),
      logs: () => logs.stats(),
    });
    const releases = new ReleaseCache({
      directory: o.paths.releases,
      download: (digest, signal) => reporter.download(digest, signal),
      log,
      inUse: () => instances.releasesInUse(),
      bounds: o.releaseBounds,
      ...(sandbox.highest > Isolation.NONE ? { gidBase: o.uidBase + firstReleaseGid } : {}),
    });
    const volumes = new VolumeStore({
      directory: o.paths.volumes,
      node: o.node,
      clock: agentClock,
      log,
      report: (value) => spool.append({ case: "storage", value }, agentClock.now()),
      everyMs: o.volumeIntervalMs,
    });
    const mechanism: Mechanism = {
      node: o.node,
      tenantHost,
      homes: o.paths.homes,
      views: o.paths.views,
      sockets: o.paths.sockets,
      uidBase: o.uidBase,
      clock: agentClock,
      log,
      host,
      sandbox,
      spawner: o.spawner(kernel),
      readiness: o.readiness,
      table: new ProcessTable(kernel, { from: o.uidBase, to: o.uidBase + 65_535 }),
      ports: tenantPorts,
      gate,
      releases,
      caches: new TranspilerCaches(o.paths.caches, log),
      volumes,
      exits,
      records,
      logs,
      ended,
      spool,
      metrics,
      instancesOf: (tenant) => instances.of(tenant),
      signal: abandon.signal,
    };
    const snapshots = new Snapshots(mechanism, o.paths.bin);
    const instances: Instances = new Instances(mechanism, {
      allowDirectories: o.allowDirectories,
      maxInstances: o.capacity.maxInstances,
      maxActive: o.maxActive,
    });
    const taken = instances.adopt(left);
    if (taken.adopted + taken.buried > 0) log.info(taken, "took over what the agent before this one left");
    sweep(o.paths.homes, instances);
    sweep(o.paths.views, instances);
    sweep(o.paths.sockets, instances);
    host.sweep(new Set(instances.all().map((instance) => instance.group.path)));
    logs.prune();

    const observer = new Observer({
      instances: () => instances.all(),
      table: mechanism.table,
      capacity: o.capacity,
      waitingStarts: () => gate.waiting,
      diskPath: o.paths.homes,
      ballast,
      metrics,
      logs,
      tallies,
      clock: systemClock,
      log,
      intervalMs: o.observeIntervalMs,
      usageEveryMs: o.usageIntervalMs,
    });
    later("stopping the observer", () => observer.stop());

    const server: RpcServer = await serveRpc({
      name: "agent",
      host: o.host,
      port: o.port,
      credentials: o.credentials,
      log,
      metrics: metrics.registry,
      routes: (router) => {
        const parts = { incarnation, fence, instances, releases, logs, volumes, snapshots };
        router.service(AgentService, agentService(parts));
      },
    });
    const connection = connectLeader({ urls: o.schedulerUrls, credentials: o.credentials });
    later("closing the connection to the scheduler", () => connection.close());
    volumes.start();
    later("writing down what volumes have held", () => volumes.stop());
    const reporter: Reporter = new Reporter({
      connection,
      spool,
      fence,
      inventory: () => ({ instances: instances.list(), volumes: volumes.list() }),
      pressure: () => observer.pressure(),
      metrics,
      log,
      join: {
        node: o.node,
        agentUrl: o.advertiseUrl ?? server.url,
        bootId: kernel.bootId,
        incarnation,
        version: o.version,
        capacity: {
          memoryBytes: BigInt(o.capacity.memoryBytes),
          cpuMillis: o.capacity.cpuMillis,
          maxInstances: o.capacity.maxInstances,
        },
        isolation: sandbox.rungs,
        host: {
          kind: host.kind,
          missing: [...new Set([...host.missing, ...sandbox.missing])].slice(0, mostMissing),
          canPageOut: kernel.hasSwap(),
        },
        labels: { ...o.labels },
        allowDirectories: o.allowDirectories,
      },
    });
    later("stopping the reporter", () => reporter.stop());
    later("handing over the last records", () => reporter.flush(flushMs));
    later("closing the release cache", () => releases.close());
    // After the tenants: whoever waits for a start or a stop hears what became of it.
    later("closing the server", () => server.stop(serverGraceMs));
    if (o.onStop === "stop") {
      const what = "stopping the tenants";
      const stopAll = () =>
        withDeadline(instances.stopAll(ExitReason.DISPOSED), instances.longestStopMs + killMs, what);
      later(what, stopAll, stopAllMs);
    } else {
      later("leaving the tenants to the next agent", () => instances.stopUnspawned(ExitReason.DISPOSED));
    }
    later("refusing new starts", () => instances.close());
    log.info({ url: server.url, cgroups: host.kind, incarnation }, "the agent serves");

    let stopping: Promise<void> | undefined;
    const stop = () => {
      stopping ??= unwind().then(() => log.info("the agent has stopped"));
      return stopping;
    };
    return {
      node: o.node,
      url: server.url,
      port: server.port,
      incarnation,
      get joined() {
        return reporter.joined;
      },
      get instances() {
        return instances.size;
      },
      stop,
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    await unwind();
    throw error;
  }
}

/** Removes from a directory what is named after instances that are no more. */
function sweep(directory: string, instances: Instances): void {
  for (const name of readdirSync(directory)) {
    if (!instances.get(name)) removeTree(join(directory, name));
  }
}
