import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { ExitReason, InstanceState } from "@warren/proto/common";
import { type FakeScheduler, isAlive, pidsOf, TestSite } from "../test/support.ts";

/** More than a start and a stop have; the last ones kill nobody, which ends the search. */
const mostSteps = 60;

describe.each(["before", "after"] as const)(
  "the agent is killed %s each step of a start and of a stop",
  (when) => {
    let site: TestSite;
    let scheduler: FakeScheduler;

    beforeAll(async () => {
      site = await TestSite.open();
      scheduler = await site.scheduler();
    });

    afterAll(() => site[Symbol.asyncDispose]());

    test("rule 5, rule 8: started again nothing is left, and nothing is lost", async () => {
      let killed = 0;
      for (let at = 1; at <= mostSteps; at++) {
        const options = site.options(scheduler.url, { onStop: "keep", usageIntervalMs: 60_000 });
        const crashing = await site.spawnAgent({ ...options, crash: { at, when } } as typeof options, [
          join(import.meta.dir, "crashing-agent.ts"),
        ]);
        const ref = crashing.t.ref();
        const gone = <T>(call: Promise<T>) => call.then(String, (error: Error) => error.message);
        await gone(crashing.t.start("polite.ts", {}, ref));
        await gone(crashing.t.stop(ref.id, ExitReason.IDLE_KILLED));
        // A dead agent answers nothing; one that lives has done its stop, and whatever it does after that.
        const survived = await crashing.t.list().then(
          () => true,
          () => false,
        );
        await crashing.kill();
        if (!survived) killed++;

        const next = await site.agent(scheduler.url, options);
        const seed = `${when} step ${at}`;
        const was = pidsOf(ref.id);
        if ((await next.list()).length > 0) await next.stop(ref.id, ExitReason.KILLED, 1_000);
        const told = () =>
          scheduler.transitions(ref.id).filter((one) => one.to === InstanceState.EXITED).length;
        await waitUntil(async () => (await next.list()).length === 0, { deadlineMs: 10_000, what: seed });
        // Whatever was told of it came to an end, told once.
        const wasHeardOf = scheduler.transitions(ref.id).length > 0 || was.length > 0;
        if (wasHeardOf)
          await waitUntil(() => told() === 1, { deadlineMs: 10_000, what: `${seed}: told once` });
        expect([seed, pidsOf(ref.id), was.filter(isAlive)]).toEqual([seed, [], []]);
        for (const directory of ["instances", "homes", "sock"]) {
          const path = join(options.runtimeDirectory, directory);
          await waitUntil(() => !existsSync(path) || readdirSync(path).length === 0, {
            deadlineMs: 5_000,
            what: `${seed}: nothing in ${directory}`,
          });
        }
        // Once it has ended it never starts again.
        if (wasHeardOf) expect((await next.start("hello.ts", {}, ref)).state).toBe(InstanceState.EXITED);
        await next.agent.stop();
        expect([seed, told()]).toEqual([seed, wasHeardOf ? 1 : 0]);
        if (survived) break;
      }
      // It really was killed on the way, again and again, and got through in the end.
      expect(killed).toBeGreaterThan(8);
      expect(killed).toBeLessThan(mostSteps);
    }, 240_000);
  },
);
