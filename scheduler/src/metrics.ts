/** `warren_scheduler_*`: read from the core's state at each scrape, so that nothing is counted twice. */
import { createMetrics, Gauge, type Registry } from "@warren/common/metrics";
import { InstanceMode } from "@warren/proto/common";
import { emptyState, type State } from "./core/model.ts";
import type { Leadership } from "./leadership.ts";

/** Of one that does not lead: it knows of nothing. */
const nothing: State = emptyState(0n, 0);

export function schedulerMetrics(leadership: Leadership, maxConcurrent: number): Registry {
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
  gauge("frozen_instances", "Of these, frozen, paged out or not.", () => {
    let frozen = 0;
    for (const { phase, mode, lost } of state().instances.values())
      if (phase.kind === "ready" && !lost && mode >= InstanceMode.FROZEN) frozen++;
    return frozen;
  });
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
  gauge(
    "events_dropped_total",
    "Own events dropped because the journal was away.",
    () => leadership.term?.dropped ?? 0,
  );
  gauge("leader", "1 while it leads, 0 while it follows.", () => (leadership.term ? 1 : 0));
  gauge("epoch", "Of its lease; 0 while it follows.", () => Number(leadership.term?.epoch ?? 0n));
  gauge("terms_total", "How often this process has taken the lead.", () => leadership.terms);
  const nodes = new Gauge({
    name: "warren_scheduler_nodes",
    help: "Nodes by state.",
    labelNames: ["state"],
    registers: [registry],
    collect() {
      const counts = { up: 0, expected: 0, lost: 0 };
      for (const node of state().nodes.values())
        counts[node.lost ? "lost" : node.confirmed ? "up" : "expected"]++;
      for (const [name, n] of Object.entries(counts)) nodes.set({ state: name }, n);
    },
  });
  const counts = new Gauge({
    name: "warren_scheduler_decisions_total",
    help: "What was decided and seen since this scheduler took over, by name.",
    labelNames: ["name"],
    registers: [registry],
    collect() {
      counts.reset(); // of an earlier term
      for (const [name, n] of Object.entries(state().counts)) counts.set({ name }, n);
    },
  });
  return registry;
}
