/** What an operator sees of a gateway. No label is a tenant's: their number has no bound. */
import { Counter, createMetrics, Gauge, Histogram, type Registry } from "@warren/common/metrics";

export interface GatewayMetrics {
  readonly registry: Registry;
  /** A request was answered, by the tenant or by the gateway. */
  answered(status: number): void;
  /** The gateway refused, by the refusal's `error`. */
  refused(error: string): void;
  /** A held request went on after so long. */
  woke(ms: number): void;
  /** An agent was asked to thaw an instance, and how it answered. */
  thawed(outcome: string, ms: number): void;
  /** A request was given to a second instance, since the first refused the connection. */
  repeated(): void;
}

/** Figures that are read when somebody asks. */
export interface Readings {
  held(): number;
  inFlight(): number;
  instances(): number;
  watchUp(): boolean;
  trafficTenants(): number;
}

export function createGatewayMetrics(readings: Readings): GatewayMetrics {
  const registry = createMetrics("warren_gateway");
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `warren_gateway_${name}`,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge("held_requests", "Requests that wait for their tenant to start.", readings.held);
  gauge("in_flight", "Requests, streams and WebSockets open at tenants.", readings.inFlight);
  gauge("instances", "Instances this gateway knows.", readings.instances);
  gauge("watch_up", "1 while a watch of the scheduler's endpoints stands.", () => Number(readings.watchUp()));
  gauge("traffic_tenants", "Tenants whose requests and bytes are counted.", readings.trafficTenants);
  const requests = new Counter({
    name: "warren_gateway_requests_total",
    help: "Requests answered, by class of status.",
    labelNames: ["class"],
    registers,
  });
  const refusals = new Counter({
    name: "warren_gateway_refusals_total",
    help: "Requests that the gateway answered itself, by reason.",
    labelNames: ["reason"],
    registers,
  });
  const wakes = new Histogram({
    name: "warren_gateway_wake_seconds",
    help: "How long held requests waited for their tenant.",
    buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30],
    registers,
  });
  const thaws = new Counter({
    name: "warren_gateway_thaws_total",
    help: "Thaws asked of agents, by outcome.",
    labelNames: ["outcome"],
    registers,
  });
  const thawTime = new Histogram({
    name: "warren_gateway_thaw_seconds",
    help: "How long agents took to thaw an instance.",
    buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5],
    registers,
  });
  const repeats = new Counter({
    name: "warren_gateway_repeats_total",
    help: "Requests given to an instance once more after a refused or lost connection.",
    registers,
  });
  return {
    registry,
    answered: (status) => requests.inc({ class: `${Math.floor(status / 100)}xx` }),
    refused: (error) => refusals.inc({ reason: error }),
    woke: (ms) => wakes.observe(ms / 1000),
    thawed(outcome, ms) {
      thaws.inc({ outcome });
      if (outcome === "thawed") thawTime.observe(ms / 1000);
    },
    repeated: () => repeats.inc(),
  };
}
