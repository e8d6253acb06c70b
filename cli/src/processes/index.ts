/**
 * `warren scheduler | agent | gateway | metering`: one process each. Each room is loaded only by
 * its own process: a verb like `warren ps` must not wait for all of them.
 */
import { availableParallelism, totalmem } from "node:os";
import { resolve } from "node:path";
import { createLogger } from "@warren/common/log";
import { LiveCredentials, loadCredentials } from "@warren/common/rpc/credentials";
import { nameOf } from "@warren/common/tls/ca";
import { readCa } from "@warren/common/tls/cell";
import { Role } from "@warren/proto/common";
import type { Command } from "commander";
import { UserError } from "../exit.ts";
import { version } from "../version.ts";
import { processCommand } from "./command.ts";
import { joinFirst } from "./join.ts";
import { renewing } from "./renewing.ts";
import { runProcess } from "./run.ts";
import { agentSchema, gatewaySchema, meteringSchema, schedulerSchema } from "./schemas.ts";
import { claimStore } from "./store-kind.ts";

/** Stopping a node's tenants may take their grace; everything else is quick. */
const stopDeadlineMs = 15_000;
const agentStopDeadlineMs = 60_000;

export function processCommands(program: Command): void {
  processCommand(program, {
    name: "scheduler",
    summary: "run a scheduler: the one brain of a cell",
    schema: schedulerSchema,
    run: (config) => {
      const log = createLogger({ process: "scheduler" });
      return runProcess({
        process: "scheduler",
        log,
        readyFile: config.readyFile,
        stopDeadlineMs,
        async start(fatal) {
          claimStore(config.state, config.nats === undefined ? "embedded" : "nats");
          const scheduler = await (await import("@warren/scheduler")).startScheduler({
            name: config.name,
            stateDirectory: config.state,
            natsUrl: config.nats,
            takeoverMs: config.takeoverAfter,
            host: config.host,
            port: config.port,
            advertiseUrl: config.advertise,
            credentials: loadCredentials(config.credentials),
            authority: config.ca === undefined ? undefined : await readCa(config.ca),
            config: {
              cell: config.cell,
              maxConcurrent: config.maxConcurrent,
              idleStopAfterMs: config.idleAfter,
              idleFreezeAfterMs: config.freezeAfter,
              idlePageOutAfterMs: config.pageOutAfter,
              minResidenceMs: config.minResidence,
              reportPeriodMs: config.reportPeriod,
              releases: {
                count: config.keepReleases,
                bytes: config.keepReleaseBytes,
                graceMs: config.releaseGrace,
              },
              nodeLostMs: config.nodeLostAfter,
              nodeLateMs: Math.min(3.5 * config.reportPeriod, config.nodeLostAfter),
              placement: config.placement,
              overcommitMemory: config.overcommitMemory,
              rebalance: config.rebalance,
            },
            eventFormat: config.eventFormat,
            streams: {
              replicas: config.natsReplicas,
              eventsMaxAgeMs: config.eventsKeep,
              eventsMaxCount: config.eventsMaxCount,
              eventsMaxBytes: config.eventsMaxBytes,
              duplicateWindowMs: Math.min(config.duplicateWindow, config.eventsKeep),
            },
            version,
            log,
            onFatal: fatal,
          });
          return { facts: { url: scheduler.url }, stop: () => scheduler.stop() };
        },
      });
    },
  });

  processCommand(program, {
    name: "agent",
    summary: "run a node's agent: it starts, watches and stops instances as the scheduler says",
    schema: agentSchema,
    run: (config) => {
      const log = createLogger({ process: "agent", node: config.node });
      const [from, to] = config.tenantPorts.split("-").map(Number);
      return runProcess({
        process: "agent",
        log,
        readyFile: config.readyFile,
        stopDeadlineMs: agentStopDeadlineMs,
        async start() {
          await joinFirst({ ...config, name: config.node, role: Role.AGENT, log });
          const credentials = new LiveCredentials(loadCredentials(config.credentials));
          const agent = await (await import("@warren/agent")).startAgent({
            node: config.node,
            runtimeDirectory: config.runtime,
            host: config.host,
            port: config.port,
            advertiseUrl: config.advertise,
            schedulerUrls: config.scheduler,
            credentials,
            tenantHost: config.tenantHost,
            capacity: {
              memoryBytes: config.memory ?? totalmem(),
              cpuMillis: Math.round((config.cpus ?? availableParallelism()) * 1000),
              maxInstances: config.maxInstances,
            },
            labels: config.labels,
            tenantPorts: { from: from!, to: to! },
            allowDirectories: config.directories,
            onStop: config.onStop,
            isolation: config.isolation,
            uidBase: config.uidBase,
            startsPerSecond: config.startsPerSecond,
            simultaneousStarts: config.simultaneousStarts,
            maxActive: config.maxActive,
            cacheDirectory: config.cache,
            volumesDirectory: config.volumesDir === undefined ? undefined : resolve(config.volumesDir),
            releaseCacheBytes: config.releaseCache,
            logBounds: {
              files: config.logFiles,
              ...(config.logFileSize === undefined ? {} : { fileBytes: config.logFileSize }),
            },
            version,
            log,
          });
          return renewing(
            { facts: { url: agent.url, node: config.node }, stop: () => agent.stop() },
            { directory: config.credentials, credentials, urls: config.scheduler, log },
          );
        },
      });
    },
  });

  processCommand(program, {
    name: "gateway",
    summary: "run a gateway: HTTP in, tenants out, cold ones woken",
    schema: gatewaySchema,
    run: (config) => {
      const log = createLogger({ process: "gateway" });
      return runProcess({
        process: "gateway",
        log,
        readyFile: config.readyFile,
        stopDeadlineMs,
        async start() {
          await joinFirst({ ...config, name: config.name ?? "gateway", role: Role.GATEWAY, log });
          const credentials = new LiveCredentials(loadCredentials(config.credentials));
          const gateway = await (await import("@warren/gateway")).startGateway({
            name: gatewayName(config.name, credentials.cert),
            host: config.host,
            port: config.port,
            adminHost: config.adminHost,
            adminPort: config.adminPort,
            domain: config.domain ?? config.publicUrl?.domain,
            publicUrl: config.publicUrl?.pattern,
            trustForwarded: config.trustForwarded,
            schedulerUrls: config.scheduler,
            credentials,
            holdDeadlineMs: config.hold,
            trafficIntervalMs: config.trafficEvery,
            log,
          });
          return renewing(
            {
              facts: { url: gateway.url, port: `${gateway.port}`, admin: gateway.adminUrl ?? "" },
              stop: () => gateway.stop(),
            },
            { directory: config.credentials, credentials, urls: config.scheduler, log },
          );
        },
      });
    },
  });

  processCommand(program, {
    name: "metering",
    summary: "run the metering process: events in, ledger and usage out",
    schema: meteringSchema,
    run: (config) => {
      const log = createLogger({ process: "metering" });
      return runProcess({
        process: "metering",
        log,
        readyFile: config.readyFile,
        stopDeadlineMs,
        async start() {
          const metering = await (await import("@warren/metering")).startMetering({
            stateDirectory: config.state,
            ledgerUrl: config.ledger,
            foldAfter: Math.ceil(config.foldAfter / (24 * 3_600_000)),
            journalDirectory: config.journal,
            natsUrl: config.nats,
            consumer: config.consumer,
            plansFile: config.plans,
            schedulerUrls: config.scheduler,
            host: config.host,
            port: config.port,
            credentials: loadCredentials(config.credentials),
            log,
          });
          return { facts: { url: metering.url }, stop: () => metering.stop() };
        },
      });
    },
  });
}

/** @throws UserError when the certificate names another: nothing that it passed to tenants could be billed */
function gatewayName(asked: string | undefined, cert: string | undefined): string {
  const named = cert && nameOf(cert);
  if (!named) return asked ?? "gateway";
  if (asked === undefined || asked === named) return named;
  throw new UserError(
    `--name ${asked}: the certificate of this gateway is for ${named}; leave it out, or say ${named}`,
  );
}
