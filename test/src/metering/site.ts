/**
 * A metered fleet under a known workload: NATS behind a network that can be cut, two schedulers, two agents, a gateway and
 * a ledger, each with a wall clock of its own, and some hundred tenants whose use is known from the kernel.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { pause, toDuration, waitUntil } from "@warren/common/time";
import {
  Availability,
  IdlePolicySchema,
  InstanceState,
  Isolation,
  LimitsSchema,
  StopPolicySchema,
  TenantSpecSchema,
} from "@warren/proto/common";
import type { TenantUsage } from "@warren/proto/metering";
import { type NatsServer, startNatsServer } from "@warren/store/testing/nats-server";
import { FakeClocks } from "../fake-clock.ts";
import { Fleet } from "../fleet.ts";
import { TcpProxy } from "../tcp-proxy.ts";
import { writeKnownApp } from "./app.ts";
import { Truth } from "./truth.ts";

export interface SiteOptions {
  readonly tenants: number;
  /** The library that fakes clocks, if there is one. */
  readonly fakeTime: string | undefined;
  /** Whether groups are to be had: memory is counted there exactly. */
  readonly groups: boolean;
}

/** Of the tmpfs that an agent's runtime directory is: a disk that can be filled. It may have to hold Bun itself. */
const diskBytes = 256 * 2 ** 20;
/** One tenant in so many is frozen when nobody uses it. */
const sleepers = 10;
const hourMs = 3_600_000;
/** So many are started at once. */
const startsAtOnce = 16;

export class Site implements AsyncDisposable {
  readonly nats: NatsServer;
  /** Everybody's way to NATS but the ledger's, which has its own. */
  readonly network: TcpProxy;
  readonly ledgerNetwork: TcpProxy;
  readonly fleet: Fleet;
  readonly truth: Truth;
  readonly tenants: readonly string[];
  /** The disk that the runtime directory of node n2 is on. */
  readonly disk: string;
  readonly #resources: AsyncDisposableStack;
  /** Requests made of tenants, those that were answered, and the bytes of these answers. */
  readonly asked = new Map<string, { tried: number; answered: number; bytes: number }>();

  private constructor(
    parts: Pick<Site, "nats" | "network" | "ledgerNetwork" | "fleet" | "truth" | "tenants" | "disk">,
    resources: AsyncDisposableStack,
  ) {
    ({
      nats: this.nats,
      network: this.network,
      ledgerNetwork: this.ledgerNetwork,
      fleet: this.fleet,
      truth: this.truth,
      tenants: this.tenants,
      disk: this.disk,
    } = parts);
    this.#resources = resources;
  }

  /** Everything up, and every tenant ready. */
  static async start({ tenants: count, fakeTime, groups }: SiteOptions): Promise<Site> {
    await using resources = new AsyncDisposableStack();
    const parent = mkdtempSync(join(tmpdir(), "warren-metered-"));
    resources.defer(() => rmSync(parent, { recursive: true, force: true }));
    const disk = join(parent, "disk");
    mkdirSync(disk);
    mount(disk);
    resources.defer(() => void Bun.spawnSync(["umount", "-l", disk]));
    const app = writeKnownApp(parent);
    const nats = resources.use(await startNatsServer());
    const network = resources.use(await TcpProxy.to(nats.url));
    const ledgerNetwork = resources.use(await TcpProxy.to(nats.url));
    const truth = resources.use(new Truth(app.truth)); // ends after the fleet
    const fleet = resources.use(
      await Fleet.start({
        schedulers: 2,
        agents: 2,
        takeoverAfter: "2s",
        natsUrl: `nats://127.0.0.1:${network.port}`,
        metering: { natsUrl: `nats://127.0.0.1:${ledgerNetwork.port}` },
        isolation: groups ? "cgroup" : "none",
        runtimeOf: (node) => join(node === "n2" ? disk : parent, node),
        clocks: fakeTime === undefined ? undefined : new FakeClocks(join(parent, "clocks"), fakeTime),
        schedulerArgs: ["--placement", "spread", "--freeze-after", "1h"],
        agentArgs: ["--directories", "true"],
      }),
    );
    const tenants = Array.from({ length: count }, (_, n) => `t${n}`);
    const site = new Site({ nats, network, ledgerNetwork, fleet, truth, tenants, disk }, resources.move());
    try {
      for (const [n, key] of tenants.entries()) {
        await fleet.warren.scheduler.applyTenant({
          spec: create(TenantSpecSchema, {
            key,
            source: { case: "directory", value: app.directory },
            env: { TRUTH: app.truth, KEY: key, MIB: `${2 + (n % 8)}`, BURN_MS: `${1 + (n % 2)}` },
            isolation: groups ? Isolation.CGROUP : Isolation.NONE,
            limits: groups ? create(LimitsSchema, { memoryBytes: 512n << 20n }) : undefined,
            availability: Availability.AT_LEAST_ONE,
            idle: create(
              IdlePolicySchema,
              n % sleepers === 0
                ? { freezeAfter: toDuration(3_000), stopAfter: toDuration(hourMs) }
                : { keepWarm: true },
            ),
            stop: create(StopPolicySchema, { grace: toDuration(2_000), drain: toDuration(200) }),
          }),
        });
      }
      await site.ensure(tenants);
      return site;
    } catch (error) {
      await site[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** All of them ready, within 90 s. */
  ensure(tenants: readonly string[]): Promise<void> {
    return insist(tenants, (tenant, options) => this.fleet.warren.scheduler.ensure({ tenant }, options));
  }

  /** Ended, all of them, within 90 s. */
  stop(tenants: readonly string[]): Promise<void> {
    return insist(tenants, (tenant, options) => this.fleet.warren.scheduler.stop({ tenant }, options));
  }

  /** One request through the gateway, whatever becomes of it. */
  async ask(tenant: string, bytes: number): Promise<void> {
    const sum = this.asked.get(tenant) ?? { tried: 0, answered: 0, bytes: 0 };
    this.asked.set(tenant, sum);
    sum.tried++;
    try {
      const { port } = new URL(this.fleet.gateway.url);
      const response = await fetch(`http://${tenant}.localhost:${port}/?bytes=${bytes}`, {
        signal: AbortSignal.timeout(10_000),
      });
      const body = await response.arrayBuffer();
      if (response.status !== 200) return;
      sum.answered++;
      sum.bytes += body.byteLength;
    } catch {
      // the cell is being hurt; it was tried
    }
  }

  async usage(): Promise<ReadonlyMap<string, TenantUsage>> {
    const { rows } = await this.fleet
      .connect(...this.fleet.schedulers)
      .metering.getUsage({}, { timeoutMs: 5_000 });
    return new Map(rows.map((row) => [row.tenant, row]));
  }

  /** Waits until the scheduler counts so many ready instances. */
  async ready(count: number): Promise<void> {
    await waitUntil(
      async () => {
        const { instances } = await this.fleet.warren.scheduler.listInstances({});
        return instances.filter(({ state }) => state === InstanceState.READY).length === count;
      },
      { deadlineMs: 60_000, what: `${count} ready instances` },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}

/** Does it for each, some at once, and again until it is done: the cell may be being hurt. */
async function insist(
  tenants: readonly string[],
  call: (tenant: string, options: { signal: AbortSignal; timeoutMs: number }) => Promise<unknown>,
): Promise<void> {
  const left = [...tenants];
  const signal = AbortSignal.timeout(90_000);
  const lane = async () => {
    for (let tenant = left.shift(); tenant; tenant = left.shift()) {
      for (;;) {
        try {
          await call(tenant, { signal, timeoutMs: 20_000 });
          break;
        } catch (error) {
          if (signal.aborted) throw error;
          await pause(200, signal);
        }
      }
    }
  };
  await Promise.all(Array.from({ length: startsAtOnce }, lane));
}

function mount(path: string): void {
  const { exitCode, stderr } = Bun.spawnSync([
    "mount",
    "-t",
    "tmpfs",
    "-o",
    `size=${diskBytes}`,
    "tmpfs",
    path,
  ]);
  if (exitCode !== 0) throw new Error(`no tmpfs could be mounted: ${stderr.toString()}`);
}
