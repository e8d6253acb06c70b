/** The agent's figures for Prometheus. No label names a tenant: there may be thousands. */
import { Counter, createMetrics, Gauge, Histogram, type Registry } from "@warren/common/metrics";
import type { StartPhases } from "./records.ts";

const startBuckets = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30];

export interface AgentMetrics {
  readonly registry: Registry;
  /** Starts by how they came out: "ready", or the exit reason. */
  readonly starts: Counter<"outcome">;
  /** Counts a start that came out ready, and where its time went. */
  started(spawnToReadyMs: number, phases: StartPhases | undefined): void;
  readonly thaws: Counter;
  /** One round of observing all instances: the time in which nothing else could run. */
  readonly observationSeconds: Histogram;
  /** What tenants sent to their channels and was not taken, by why. */
  readonly refusedMessages: Counter<"why">;
  /** Ends by reason. */
  readonly exits: Counter<"reason">;
  /** Commands and starts refused, by why. */
  readonly refused: Counter<"why">;
  readonly reports: Counter<"outcome">;
}

/** What was done with tenants' output, since the agent started. */
export interface LogCounts {
  readonly readBytes: number;
  readonly writtenLines: number;
  readonly droppedBytes: number;
  readonly cutLines: number;
}

export interface Gauges {
  instances(): number;
  frozen(): number;
  spooled(): number;
  waitingStarts(): number;
  epoch(): number;
  logs(): LogCounts;
}

export function agentMetrics(gauges: Gauges): AgentMetrics {
  const registry = createMetrics("warren_agent");
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `warren_agent_${name}`,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge("instances", "Instances that are not gone.", gauges.instances);
  gauge("frozen_instances", "Instances of which nothing runs.", gauges.frozen);
  gauge("spooled_records", "Records that the scheduler has not acknowledged.", gauges.spooled);
  gauge("waiting_starts", "Starts that wait for their turn.", gauges.waitingStarts);
  gauge("epoch", "Highest scheduler epoch seen.", gauges.epoch);
  const counted = (name: string, help: string, read: () => number) =>
    new Counter({
      name: `warren_agent_${name}_total`,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  counted("log_read_bytes", "Output of tenants that was read, in bytes.", () => gauges.logs().readBytes);
  counted("log_lines", "Lines of output that were kept.", () => gauges.logs().writtenLines);
  counted(
    "log_dropped_bytes",
    "Output over the rate, or that the disk did not take, in bytes.",
    () => gauges.logs().droppedBytes,
  );
  counted("log_cut_lines", "Lines that were longer than may be and are cut.", () => gauges.logs().cutLines);
  const startSeconds = new Histogram({
    name: "warren_agent_start_seconds",
    help: "From spawn until ready, in seconds.",
    buckets: startBuckets,
    registers,
  });
  const phaseSeconds = new Histogram({
    name: "warren_agent_start_phase_seconds",
    help: "Where the time of starts went, in seconds: fetch, queue, spawn, listen, answer.",
    labelNames: ["phase"],
    buckets: startBuckets,
    registers,
  });
  const starts = new Counter({
    name: "warren_agent_starts_total",
    help: "Starts by outcome: ready, or the exit reason.",
    labelNames: ["outcome"],
    registers,
  });
  return {
    registry,
    starts,
    started(spawnToReadyMs, phases) {
      starts.inc({ outcome: "ready" });
      startSeconds.observe(spawnToReadyMs / 1000);
      if (!phases) return; // adopted while it started: nobody saw where the time went
      const { fetchMs, queueMs, spawnMs, listenMs, answerMs } = phases;
      const all = { fetch: fetchMs, queue: queueMs, spawn: spawnMs, listen: listenMs, answer: answerMs };
      for (const [phase, ms] of Object.entries(all)) phaseSeconds.observe({ phase }, ms / 1000);
    },
    thaws: new Counter({
      name: "warren_agent_thaws_total",
      help: "Thaws asked for.",
      registers,
    }),
    observationSeconds: new Histogram({
      name: "warren_agent_observation_seconds",
      help: "One round of observing all instances, in seconds of the agent's event loop.",
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
      registers,
    }),
    refusedMessages: new Counter({
      name: "warren_agent_refused_messages_total",
      help: "What tenants sent to their channels and was not taken, by why.",
      labelNames: ["why"],
      registers,
    }),
    exits: new Counter({
      name: "warren_agent_exits_total",
      help: "Instances that ended, by reason.",
      labelNames: ["reason"],
      registers,
    }),
    refused: new Counter({
      name: "warren_agent_refused_total",
      help: "Commands refused, by why.",
      labelNames: ["why"],
      registers,
    }),
    reports: new Counter({
      name: "warren_agent_reports_total",
      help: "Reports to the scheduler, by outcome.",
      labelNames: ["outcome"],
      registers,
    }),
  };
}
