/**
 * Rule 8 under every fault: 200 tenants whose use is known from the kernel, a fleet on a real nats-server, and one thing
 * after the other that goes wrong, then all of them at once. After each, what is billed is what was used, to within one
 * observation interval per instance; at the end every life was told exactly once, and a ledger built anew says the same.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pause, waitUntil } from "@warren/common/time";
import { Turn } from "@warren/common/turn";
import { type TenantUsage, UsageWindow } from "@warren/proto/metering";
import { fakeTimeLibrary } from "../src/fake-clock.ts";
import type { FleetProcess } from "../src/fleet.ts";
import { differences, ratios } from "../src/metering/compare.ts";
import { defectsOf, deliverAgain, readStream, transitionsOf } from "../src/metering/journal.ts";
import { Site } from "../src/metering/site.ts";

const isRoot = process.getuid?.() === 0;
const hasNats = Bun.which("nats-server") !== null;
const missing = [isRoot ? "" : "root", hasNats ? "" : "nats-server"].filter(Boolean).join(", ");
const fakeTime = fakeTimeLibrary();

const tenants = 200;
const minute = 60_000;
/** Of an answer. */
const mostBytes = 4_000;

let site: Site;
const begunAt = performance.now();

/** What a user of the platform does meanwhile: some tenants are stopped and started, some are asked for bytes. */
async function whileWorking<T>(work: () => Promise<T>): Promise<T> {
  const over = new AbortController();
  const { signal } = over;
  let turn = 0;
  const lane = async (each: (n: number) => Promise<void>, restMs: number) => {
    while (!signal.aborted) {
      await each(turn++);
      await pause(restMs, signal);
    }
  };
  const replace = async (n: number) => {
    const tenant = site.tenants[(n * 7) % tenants]!;
    await site.fleet.warren.scheduler.stop({ tenant }, { signal, timeoutMs: 5_000 }).catch(() => {});
    await site.fleet.warren.scheduler.ensure({ tenant }, { signal, timeoutMs: 5_000 }).catch(() => {});
  };
  const ask = (n: number) => site.ask(site.tenants[(n * 13) % tenants]!, mostBytes - (n % 7) * 500);
  const lanes = [lane(replace, 100), lane(replace, 100), lane(ask, 50), lane(ask, 50), lane(ask, 50)];
  try {
    return await work();
  } finally {
    over.abort();
    await Promise.all(lanes);
  }
}

/** Waits until nothing that was used is missing; nothing that was not used may be billed at any time. */
async function settled(what: string, behind?: number): Promise<void> {
  let rows: ReadonlyMap<string, TenantUsage> = new Map();
  let found: ReturnType<typeof differences> = { missing: [], invented: [] };
  const deadline = performance.now() + 90_000;
  for (;;) {
    rows = await site.usage().catch(() => new Map()); // the ledger is starting
    found = differences(site.truth, rows, behind);
    expect(found.invented).toEqual([]);
    if (rows.size > 0 && found.missing.length === 0) break;
    if (performance.now() > deadline) break;
    await pause(500);
  }
  console.log(`${what}: ${ratios(site.truth, rows)}`);
  expect(found.missing.slice(0, 3)).toEqual([]);
}

/** A fault that finds the cell hurt by another is tried again until it is done: none may be left out. */
async function insist<T>(what: string, work: () => Promise<T>): Promise<T> {
  for (const deadline = performance.now() + minute; ; await pause(500)) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > deadline)
        throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
    }
  }
}

/** Up again; without NATS a process may end as soon as it was started. */
const up = (process: FleetProcess) =>
  insist(`start of ${process.name}`, async () => {
    if (!process.alive) await process.start();
  });

/** Two faults kill the ledger: one after the other, or there would be two of it. */
const ledgerTurn = new Turn();

async function outage(ms: number): Promise<void> {
  site.network.cut();
  site.ledgerNetwork.cut();
  await pause(ms);
  site.network.mend();
  site.ledgerNetwork.mend();
}

const faults: Record<string, () => Promise<void>> = {
  "kill -9 of an agent": async () => {
    const [agent] = site.fleet.agents;
    site.truth.watched = false;
    await agent!.kill();
    await pause(3_000);
    await up(agent!);
    await pause(2_000); // it looks at each once a second
    site.truth.watched = true;
  },
  "kill -9 of the leader": async () => {
    const { leader, epoch } = await site.fleet.leader(0n, minute);
    await leader.kill();
    await insist("another leader", async () => {
      // One that lost NATS ends, for its supervisor to start it again.
      for (const other of site.fleet.schedulers) if (other !== leader) await up(other);
      await site.fleet.leader(epoch, 10_000);
    });
    await up(leader);
  },
  "kill -9 of the ledger, again and again": () =>
    ledgerTurn.run(async () => {
      for (let i = 0; i < 3; i++) {
        await site.fleet.metering!.kill();
        await up(site.fleet.metering!);
        await pause(1_000);
      }
    }),
  "kill -9 of nats-server": async () => {
    await site.nats.kill9();
    await pause(2_000);
    await site.nats.restart();
  },
  "NATS cannot be reached for a minute": () => outage(minute),
  "everything is delivered twice": async () => {
    const delivered = await insist("a second delivery", () => deliverAgain(site.nats.url));
    expect(delivered).toBeGreaterThan(tenants * 3);
  },
  "the ledger dies between its commit and its acknowledgement": () =>
    ledgerTurn.run(async () => {
      for (let i = 0; i < 3; i++) {
        site.ledgerNetwork.deafen(); // what was asked for still comes, and is committed
        await pause(1_500);
        await site.fleet.metering!.kill();
        site.ledgerNetwork.mend();
        await up(site.fleet.metering!);
      }
    }),
  "the disk of an agent's spool is full": async () => {
    const filler = join(site.disk, "filler");
    expect(() => {
      for (let size = 1; ; size++) writeFileSync(`${filler}${size}`, Buffer.alloc(2 ** 20));
    }).toThrow("ENOSPC");
    try {
      expect(() => writeFileSync(`${filler}-rest`, Buffer.alloc(2 ** 20))).toThrow("ENOSPC");
      await pause(8_000);
    } finally {
      for (const name of readdirSync(site.disk)) if (name.startsWith("filler")) rmSync(join(site.disk, name));
    }
  },
};

const clockFault = {
  "wall clocks are set back and forward": async () => {
    const { agents, schedulers, gateway, metering } = site.fleet;
    const [hour, day] = [3_600, 86_400];
    const all = [...agents, ...schedulers, gateway, metering!];
    for (const round of [
      [-5 * hour, 3 * day, 2 * day, -3 * hour, 40, -2 * hour],
      [2 * day, -12 * hour, -4 * hour, 30 * day, -6 * hour, 60 * day],
      [0, 0, 0, 0, 0, 0],
    ]) {
      for (const [i, process] of all.entries()) process.stepClock(round[i]!);
      await pause(6_000);
    }
  },
};

describe.skipIf(missing !== "")(`rule 8, on a real nats-server${missing && ` (needs ${missing})`}`, () => {
  beforeAll(async () => {
    site = await Site.start({ tenants, fakeTime, groups: true });
  }, 3 * minute);

  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
  }, 2 * minute);

  test(
    "nothing goes wrong",
    async () => {
      await whileWorking(() => pause(5_000));
      await settled("nothing goes wrong");
    },
    3 * minute,
  );

  for (const [name, fault] of Object.entries(faults)) {
    test(
      name,
      async () => {
        await whileWorking(fault);
        await settled(name);
      },
      4 * minute,
    );
  }

  test.skipIf(fakeTime === undefined)(
    `wall clocks are set back and forward${fakeTime ? "" : " (needs libfaketime)"}`,
    async () => {
      const [fault] = Object.values(clockFault);
      await whileWorking(fault!);
      await settled("clocks");
    },
    4 * minute,
  );

  test(
    "all of them together",
    async () => {
      const all = {
        ...faults,
        "NATS cannot be reached for a minute": () => outage(20_000), // the others last no longer
        ...(fakeTime ? clockFault : {}),
      };
      await whileWorking(() =>
        Promise.all(
          Object.values(all).map(async (fault, i) => {
            await pause(i * 1_000);
            await fault();
          }),
        ),
      );
      for (const process of [...site.fleet.agents, ...site.fleet.schedulers]) await up(process);
      await settled("all together");
    },
    6 * minute,
  );

  describe("at the end", () => {
    let rows: TenantUsage[] = [];

    beforeAll(async () => {
      await site.stop(site.tenants);
      await waitUntil(
        () => {
          site.truth.look();
          return [...site.truth.lives.values()].every(({ endedAt }) => endedAt !== undefined);
        },
        { deadlineMs: minute, what: "the end of every process" },
      );
    }, 3 * minute);

    test(
      "what was billed of every tenant is what it used, to within one observation interval per instance",
      async () => {
        await settled("at the end", 0);
      },
      2 * minute,
    );

    test(
      "requests and bytes are those that clients had answered; of those that failed on the way, at most all",
      async () => {
        const wrong = async () => {
          const usage = await site.usage();
          return [...site.asked].filter(([tenant, { tried, answered, bytes }]) => {
            const { requests = 0n, bytesOut = 0n } = usage.get(tenant) ?? {};
            const most = bytes + (tried - answered) * mostBytes;
            return requests < answered || requests > tried || bytesOut < bytes || bytesOut > most;
          });
        };
        expect(site.asked.size).toBeGreaterThan(tenants / 4);
        await waitUntil(async () => (await wrong()).length === 0, { deadlineMs: 20_000 }).catch(() => {});
        expect(await wrong()).toEqual([]);
      },
      minute,
    );

    test(
      "every transition was told exactly once, and no interval is negative or without end",
      async () => {
        const told = transitionsOf(await readStream(site.nats.url));
        expect(told.length).toBeGreaterThan(4 * site.truth.lives.size);
        const longest = performance.now() - begunAt + 60_000;
        expect(defectsOf(told, site.truth.lives.keys(), longest)).toEqual([]);
      },
      minute,
    );

    test(
      "a ledger built anew from the stream equals the one that lived through it all",
      async () => {
        const { fleet } = site;
        const hours = async () => {
          const answer = await fleet
            .connect(...fleet.schedulers)
            .metering.getUsage({ window: UsageWindow.HOUR });
          return answer;
        };
        const live = await hours();
        rows = live.rows;
        expect(rows.length).toBeGreaterThanOrEqual(tenants);
        await fleet.metering!.stop();
        rmSync(join(fleet.root, "metering"), { recursive: true });
        await fleet.metering!.start();
        const anew = await waitUntil(
          async () => {
            const answer = await hours();
            return answer.journalSeq >= live.journalSeq ? answer : undefined;
          },
          { deadlineMs: minute, what: "the ledger to have counted all again" },
        );
        expect(anew.rows).toEqual(rows);
      },
      2 * minute,
    );
  });
});
