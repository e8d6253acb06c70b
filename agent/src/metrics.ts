/** The agent's figures for Prometheus. No label names a tenant: there may be thousands. */
import { Counter, createMetrics, Gauge, Histogram, type Registry } from "@warren/common/metrics";

export interface AgentMetrics {
  readonly registry: Registry;
  /** Starts by how they came out: "ready", or the exit reason. */
  readonly starts: Counter<"outcome">;
  /** From spawn until ready. */
  readonly startSeconds: Histogram;
  /** Ends by reason. */
  readonly exits: Counter<"reason">;
  /** Commands and starts refused, by why. */
  readonly refused: Counter<"why">;
  readonly reports: Counter<"outcome">;
}

export interface Gauges {
  instances(): number;
  spooled(): number;
  waitingStarts(): number;
  epoch(): number;
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
  gauge("spooled_records", "Records that the scheduler has not acknowledged.", gauges.spooled);
  gauge("waiting_starts", "Starts that wait for their turn.", gauges.waitingStarts);
  gauge("epoch", "Highest scheduler epoch seen.", gauges.epoch);
  return {
    registry,
    starts: new Counter({
      name: "warren_agent_starts_total",
      help: "Starts by outcome: ready, or the exit reason.",
      labelNames: ["outcome"],
      registers,
    }),
    startSeconds: new Histogram({
      name: "warren_agent_start_seconds",
      help: "From spawn until ready, in seconds.",
      buckets: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30],
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
