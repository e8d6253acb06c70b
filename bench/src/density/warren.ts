/** Warren as a holder of tenants: a whole cluster, asked through its gateway. */
import { startCell, type TestCell } from "@warren/test/cell";
import type { Bench } from "../harness/bench.ts";
import type { Holder } from "./crowd.ts";

export class WarrenHolder implements Holder {
  readonly name = "Warren";

  private constructor(
    readonly cluster: TestCell,
    private readonly bench: Bench,
  ) {}

  /** @param memory of its one node, as `warren up --memory` takes it */
  static async start(bench: Bench, memory: string, cap: number): Promise<WarrenHolder> {
    const cluster = await startCell({ maxConcurrent: cap, memory, freezeAfter: "30s" });
    bench.later("stopping the cluster", () => cluster.stop());
    return new WarrenHolder(cluster, bench);
  }

  /** Tenants of one release, as a platform with a template has them. */
  async deploy(directory: string, tenants: readonly string[]): Promise<void> {
    const { warren } = this.cluster;
    const { digest } = await warren.upload(tenants[0]!, directory);
    for (const key of tenants) await warren.apply({ key, source: { case: "release", value: digest } });
  }

  async ask(tenant: string): Promise<string | undefined> {
    try {
      const response = await this.cluster.get(tenant);
      const body = await response.text();
      if (response.ok) return body;
      this.bench.say(`${tenant}: ${response.status} ${body}`);
    } catch (error) {
      const { text } = await this.cluster.warren.scheduler.explain({ tenant });
      this.bench.say(`${tenant}: ${error}; ${text}`);
    }
    return undefined;
  }

  live = async () => (await this.cluster.ready()).length;

  async evictions(): Promise<number> {
    const { counts } = await this.cluster.warren.scheduler.getStats({});
    return Number(counts.evictions ?? 0n);
  }
}
