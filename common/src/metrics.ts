/**
 * Prometheus metrics. prom-client's own default collectors walk the heap on Bun (up to 250 ms a scrape), so the few
 * that matter are read here.
 */
import { readdirSync } from "node:fs";
import { Gauge, Registry } from "prom-client";

export { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** A registry with the process's own figures; give it to `serveRpc`, which serves it at /metrics. */
export function createMetrics(prefix: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({});
  new Gauge({
    name: `${prefix}_process_resident_memory_bytes`,
    help: "Resident memory of this process in bytes.",
    registers: [registry],
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  new Gauge({
    name: `${prefix}_process_cpu_seconds_total`,
    help: "User and system CPU time of this process in seconds.",
    registers: [registry],
    collect() {
      const { user, system } = process.cpuUsage();
      this.set((user + system) / 1e6);
    },
  });
  new Gauge({
    name: `${prefix}_process_open_fds`,
    help: "Open file descriptors of this process; -1 where that cannot be read.",
    registers: [registry],
    collect() {
      this.set(openFiles());
    },
  });
  return registry;
}

function openFiles(): number {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return -1; // no procfs here (macOS): the help text says what -1 means
  }
}
