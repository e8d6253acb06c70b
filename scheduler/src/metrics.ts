/** `warren_scheduler_*`: read from the core's state at each scrape, so that nothing is counted twice. */
import { Counter, createMetrics, Gauge, Histogram, type Registry } from "@warren/common/metrics";
import { emptyState, type State } from "./core/model.ts";
import type { EngineOptions } from "./engine.ts";
import type { Leadership } from "./leadership.ts";
import type { Outbox } from "./outbox.ts";
import { modesOf } from "./services/views.ts";

export interface SchedulerMetrics {
  readonly registry: Registry;
  readonly decided: EngineOptions["onDecided"];
  /** Somebody has shown a join token: "enrolled", or the code of the refusal. */
  readonly enrolled: (outcome: string) => void;
}

/** Of one that does not lead: it knows of nothing. */
const nothing: State = emptyState(0n, 0);

export function schedulerMetrics(
  leadership: Leadership,
  outbox: Pick<Outbox, "size" | "dropped">,
  maxConcurrent: number,
): SchedulerMetrics {
  const state = () => leadership.term?.state ?? nothing;
  const registry = createMetrics("warren_scheduler");
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name: `warren_scheduler_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(value());
      },
    });
  gauge("live_instances", "Instances that hold a place under the cap.", () => state().live);
  gauge("max_concurrent", "The cap.", () => maxConcurrent);
  gauge("waiting_calls", "Ensure calls that wait.", () => state().waiting);
  gauge("queued_tenants", "Tenants that want an instance and have none.", () => state().queue.size);
  gauge("tenants", "Tenants.", () => state().tenants.size);
  gauge("releases", "Releases kept; decisions_total counts those collected.", () => state().releases.size);
  gauge("release_bytes", "Of these.", () => {
    let bytes = 0;
    for (const { sizeBytes } of state().releases.values()) bytes += Number(sizeBytes);
    return bytes;
  });
  gauge("gateways", "Gateways that watch.", () => state().gateways.size);
  gauge("events_dropped_total", "Own events dropped because the journal was away.", () => outbox.dropped);
  gauge("events_waiting", "Own events that the journal does not have yet.", () => outbox.size);
  gauge("leader", "1 while it leads, 0 while it follows.", () => (leadership.term ? 1 : 0));
  gauge("epoch", "Of its lease; 0 while it follows.", () => Number(leadership.term?.epoch ?? 0n));
  gauge("terms_total", "How often this process has taken the lead.", () => leadership.terms);
  gauge("parked_tenants", "Of those, such that no node could take just now.", () => state().parked.size);
  gauge("moves", "Replacements under way: reload, drain, rebalance.", () => state().moves.size);
  /** Read anew at each scrape: what an earlier term counted is gone. */
  const labelled = (
    name: string,
    help: string,
    label: string,
    read: () => Readonly<Record<string, number>>,
  ) => {
    const metric = new Gauge({
      name: `warren_scheduler_${name}`,
      help,
      labelNames: [label],
      registers: [registry],
      collect() {
        metric.reset();
        for (const [key, n] of Object.entries(read())) metric.set({ [label]: key }, n);
      },
    });
  };
  labelled("instances", "Instances that hold a place, by what they do.", "mode", () => modesOf(state()));
  labelled("nodes", "Nodes by state.", "state", () => nodesByState(state()));
  labelled(
    "placement_refusals_total",
    "Nodes that a filter kept an instance off, by filter, since this scheduler took over.",
    "filter",
    () => state().refusals,
  );
  labelled(
    "decisions_total",
    "What was decided and seen since this scheduler took over, by name: placements, evictions, freezes, rollouts.",
    "name",
    () => state().counts,
  );
  const decisions = new Histogram({
    name: "warren_scheduler_decision_seconds",
    help: "How long the core took for an input, by its type.",
    labelNames: ["input"],
    buckets: [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5],
    registers: [registry],
  });
  const enrolments = new Counter({
    name: "warren_scheduler_enrolments_total",
    help: "Hosts that have shown a join token, by outcome.",
    labelNames: ["outcome"],
    registers: [registry],
  });
  return {
    registry,
    decided: (input, ms) => decisions.observe({ input }, ms / 1000),
    enrolled: (outcome) => enrolments.inc({ outcome }),
  };
}

function nodesByState(state: State): Record<string, number> {
  const counts = { up: 0, expected: 0, lost: 0, draining: 0 };
  for (const node of state.roster) {
    if (node.draining) counts.draining++;
    counts[node.lost ? "lost" : node.confirmed ? "up" : "expected"]++;
  }
  return counts;
}
