/** Several schedulers on NATS, one leader: killed, paused, stopped in order, under warm traffic that must not notice. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Warren } from "@warren/client";
import { connectRpc } from "@warren/common/rpc/client";
import { Code, ConnectError, detailOf, isRpcCode } from "@warren/common/rpc/errors";
import { pause, waitUntil } from "@warren/common/time";
import { AgentService } from "@warren/proto/agent";
import { ExitReason, InstanceState, NotLeaderSchema, StaleEpochSchema } from "@warren/proto/common";
import { SchedulerService } from "@warren/proto/scheduler";
import { writeApp } from "../src/apps.ts";
import { cli } from "../src/cli.ts";
import { Fleet, type FleetProcess } from "../src/fleet.ts";
import type { Load } from "../src/load/load.ts";
import { startLoadProcess } from "../src/load/process.ts";
import { ownPorts, unreadFrom } from "../src/unread.ts";

const warm = ["a", "b", "c"];
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "warren-failover-"));
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

/** Instances that serve, each with what would differ had it been started again. */
async function instances(warren: Warren): Promise<string[]> {
  const all = (await warren.scheduler.listInstances({})).instances;
  return all
    .filter(({ state }) => state === InstanceState.READY)
    .map(({ ref, pid }) => `${ref!.tenant} ${ref!.id} on ${ref!.node}, pid ${pid}`)
    .sort();
}

/** Three warm tenants, one that is cold, through a client that knows only `scheduler`. */
async function deploy(fleet: Fleet, scheduler: FleetProcess): Promise<void> {
  const warren = fleet.connect(scheduler);
  const app = await writeApp(directory, "app", "hello");
  for (const tenant of [...warm, "cold", "colder"]) {
    const release = await warren.upload(tenant, app);
    await warren.apply({ key: tenant, source: { case: "release", value: release.digest } });
  }
  for (const tenant of warm) await warren.scheduler.ensure({ tenant });
}

async function startTraffic(fleet: Fleet): Promise<Load> {
  const load = startLoadProcess({
    targets: warm.map((tenant) => fleet.target(tenant)),
    rate: 150,
    durationMs: 60_000,
    body: "^hello from \\d+$",
  });
  await waitUntil(() => load.ok > 50, { deadlineMs: 10_000, what: "warm traffic" });
  return load;
}

/** A control plane that ensures warm tenants all the while, without retries of its own. */
function startEnsures(warren: Warren) {
  const stopping = new AbortController();
  const failures: string[] = [];
  let ok = 0;
  const running = (async () => {
    for (let n = 0; !stopping.signal.aborted; n++) {
      try {
        await warren.scheduler.ensure({ tenant: warm[n % warm.length]! }, { timeoutMs: 20_000 });
        ok++;
      } catch (error) {
        failures.push((error as Error).message);
      }
      await pause(25, stopping.signal);
    }
  })();
  return {
    async stop() {
      await waitUntil(() => ok > 20, { deadlineMs: 10_000, what: "20 ensures" });
      stopping.abort();
      await running;
      return { ok, failures };
    },
  };
}

/** All that must be true once another leads: the same instances, one leader, one epoch more, the old one without power. */
async function expectTakenOver(
  fleet: Fleet,
  { before, epoch, old }: { before: readonly string[]; epoch: bigint; old: FleetProcess },
): Promise<FleetProcess> {
  const { leader, epoch: now } = await fleet.leader(epoch);
  expect(now).toBe(epoch + 1n);
  expect(leader.name).not.toBe(old.name);
  await waitUntil(async () => (await instances(fleet.warren)).join() === before.join(), {
    deadlineMs: 20_000,
    what: "the same instances to be known again",
  });
  const nodes = await waitUntil(
    async () => {
      const { nodes } = await fleet.warren.scheduler.listNodes({});
      const stats = await fleet.warren.scheduler.getStats({});
      return stats.nodesUp === fleet.agents.length && stats.gateways === 1 ? nodes : undefined;
    },
    { deadlineMs: 20_000, what: "all nodes and the gateway to be back" },
  );
  // An old command is refused everywhere: each agent has been fenced to the new epoch.
  for (const { name, agentUrl } of nodes) {
    const agent = connectRpc({ url: agentUrl, credentials: fleet.commander });
    const error = await agent
      .client(AgentService)
      .stopInstance({ epoch, instance: before[0]!.split(" ")[1]!, reason: ExitReason.KILLED })
      .catch((e: unknown) => e);
    agent.close();
    expect((error as ConnectError).code, name).toBe(Code.FailedPrecondition);
    expect(detailOf(error, StaleEpochSchema), name).toMatchObject({ epoch, current: now });
  }
  // Who does not lead names who does.
  for (const scheduler of fleet.schedulers) {
    if (scheduler === leader || !scheduler.alive) continue;
    await waitUntil(
      async () => {
        const word = await fleet.ask(scheduler);
        expect(word.kind).not.toBe("leads");
        return word.kind === "follows" && word.leader.leaderUrl === leader.url && word.leader.epoch === now;
      },
      { deadlineMs: 10_000, what: `${scheduler.name} to name ${leader.name}` },
    );
  }
  return leader;
}

/** A cold tenant starts, asked for through a client that knows only a scheduler that follows (or through `warren`). */
async function expectColdStart(
  fleet: Fleet,
  leader: FleetProcess,
  tenant: string,
  warren?: Warren,
): Promise<void> {
  const follower = fleet.schedulers.find((one) => one !== leader && one.alive)!;
  const answer = await (warren ?? fleet.connect(follower)).scheduler.ensure({ tenant });
  expect(answer.cold).toBe(true);
  const { url, host } = fleet.target(tenant);
  expect((await fetch(url, { headers: { Host: host! } })).status).toBe(200);
}

async function expectUnnoticed(load: Load, ensures: ReturnType<typeof startEnsures>): Promise<void> {
  const asked = await ensures.stop();
  expect(asked.failures).toEqual([]);
  const report = await load.stop();
  expect(report.failures).toEqual([]);
  expect(report.ok).toBe(report.due);
  expect(report.ok).toBeGreaterThan(200);
}

test("rule 7: the leader is killed with -9: another leads, warm traffic does not notice, no instance is started again", async () => {
  await using fleet = await Fleet.start({ schedulers: 3, agents: 3, takeoverAfter: "3s" });
  const { leader: old, epoch } = await fleet.leader();
  await deploy(fleet, fleet.schedulers.find((one) => one !== old)!);
  const before = await instances(fleet.warren);
  expect(before).toHaveLength(3);
  const load = await startTraffic(fleet);
  const ensures = startEnsures(fleet.warren);

  await old.kill();
  const leader = await expectTakenOver(fleet, { before, epoch, old });
  await expectColdStart(fleet, leader, "cold");

  // The verbs find the leader too, past one that is gone.
  const urls = [old, ...fleet.schedulers.filter((one) => one !== leader && one !== old)].map(
    ({ url }) => url,
  );
  const shown = await cli([
    ...["nodes", "--json", "--scheduler", urls.join(","), "--credentials", fleet.clientDirectory],
  ]);
  expect(shown).toMatchObject({ code: 0, stderr: "" });
  expect(shown.stdout).toContain('"n3"');

  // Back again it follows, and takes nothing away.
  await old.start();
  await waitUntil(async () => (await fleet.ask(old)).kind === "follows", {
    deadlineMs: 10_000,
    what: `${old.name} to follow`,
  });
  expect((await fleet.leader()).leader.name).toBe(leader.name);
  expect((await fleet.leader()).epoch).toBe(epoch + 1n);
  expect((await instances(fleet.warren)).filter((one) => before.includes(one))).toEqual(before);
  await expectUnnoticed(load, ensures);
}, 60_000);

test("rule 7: the leader is paused past its lease: what it was asked meanwhile it does not answer from its old state, and it writes and commands nothing", async () => {
  await using fleet = await Fleet.start({ schedulers: 2, agents: 3, takeoverAfter: "3s" });
  const { leader: old, epoch } = await fleet.leader();
  await deploy(fleet, old);
  const before = await instances(fleet.warren);
  const load = await startTraffic(fleet);
  const ensures = startEnsures(fleet.warren);
  // Connections that stand when it falls asleep: what is written to them lies there when it wakes.
  const port = Number(new URL(old.url).port);
  const others = ownPorts(port);
  const direct = Array.from({ length: 3 }, () => connectRpc({ url: old.url, credentials: fleet.client }));
  for (const connection of direct) await connection.client(SchedulerService).ensure({ tenant: "a" });
  const ours = new Set([...ownPorts(port)].filter((own) => !others.has(own)));

  old.signal("SIGSTOP");
  const { leader } = await fleet.leader(epoch);
  const calls = [
    direct[0]!.client(SchedulerService).ensure({ tenant: "a" }, { timeoutMs: 10_000 }),
    direct[1]!.client(SchedulerService).stop({ tenant: "b" }, { timeoutMs: 10_000 }),
    direct[2]!.client(SchedulerService).applyTenant({ spec: { key: "late" } }, { timeoutMs: 10_000 }),
  ].map((call) =>
    call.then(
      () => undefined,
      (error: unknown) => error,
    ),
  );
  await waitUntil(() => unreadFrom(ours, port) >= calls.length, {
    deadlineMs: 5_000,
    what: "the calls to lie before the one that sleeps",
  });
  old.signal("SIGCONT");
  for (const call of calls) {
    const error = await call;
    expect(error).toBeInstanceOf(ConnectError);
    expect(detailOf(error, NotLeaderSchema)).toMatchObject({ begun: false });
  }
  for (const connection of direct) connection.close();

  await expectTakenOver(fleet, { before, epoch, old });
  expect(old.log()).toContain("this scheduler's lease is over; it follows from here on");
  await expectColdStart(fleet, leader, "cold");
  // Had the old one written anything, the new one's next write would be stale, and its lead over.
  await fleet.warren.scheduler.deleteTenant({ tenant: "cold" });
  const late = await fleet.warren.scheduler.getTenant({ tenant: "late" }).catch((e: unknown) => e);
  expect(isRpcCode(late, Code.NotFound)).toBe(true);
  expect((await fleet.leader()).epoch).toBe(epoch + 1n);
  expect(await instances(fleet.warren)).toEqual(before);
  await expectUnnoticed(load, ensures);

  // Without a restart it can lead again.
  await leader.kill();
  const again = await fleet.leader(epoch + 1n);
  expect(again.leader.name).toBe(old.name);
  expect(again.epoch).toBe(epoch + 2n);
}, 60_000);

test("rule 7: the leader is paused and stays so, as behind a dead link: agents and the gateway find the next one in time", async () => {
  await using fleet = await Fleet.start({ schedulers: 3, agents: 2, takeoverAfter: "3s" });
  const { leader: old, epoch } = await fleet.leader();
  await deploy(fleet, old);
  const before = await instances(fleet.warren);
  const load = await startTraffic(fleet);

  old.signal("SIGSTOP");
  const began = performance.now();
  const { leader } = await fleet.leader(epoch);
  const warren = fleet.connect(leader);
  await waitUntil(
    async () => {
      const stats = await warren.scheduler.getStats({});
      return stats.nodesUp === 2 && stats.gateways === 1;
    },
    { deadlineMs: 25_000, what: "both nodes and the gateway to be back" },
  );
  // Before the first period of the new leader (15 s) is over, in which it declares no node lost.
  expect(performance.now() - began).toBeLessThan(15_000);
  expect(await instances(warren)).toEqual(before);
  await expectColdStart(fleet, leader, "cold", warren);
  expect((await load.stop()).failures).toEqual([]);
}, 60_000);

test("rule 7: the leader is stopped in order: it hands over at once, with the default lease of 20 s", async () => {
  await using fleet = await Fleet.start({ schedulers: 3, agents: 3, takeoverAfter: "20s" });
  const { leader: old, epoch } = await fleet.leader();
  await deploy(fleet, old);
  const before = await instances(fleet.warren);
  const load = await startTraffic(fleet);
  const ensures = startEnsures(fleet.warren);

  const began = performance.now();
  const stopped = old.stop();
  await fleet.leader(epoch);
  expect(performance.now() - began).toBeLessThan(3_000); // below 1 s where the machine is not starved
  await stopped;
  const leader = await expectTakenOver(fleet, { before, epoch, old });
  await expectColdStart(fleet, leader, "colder");
  await expectUnnoticed(load, ensures);
}, 60_000);
