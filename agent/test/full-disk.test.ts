import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { waitUntil } from "@warren/common/time";
import { ExitReason, InstanceState } from "@warren/proto/common";
import { type FakeScheduler, isAlive, TestSite } from "./support.ts";

const isRoot = process.getuid?.() === 0;
const mebibyte = 1024 * 1024;

describe.skipIf(!isRoot)(
  "a runtime directory that a tenant has filled (needs root: a tmpfs of its own)",
  () => {
    let site: TestSite;
    let scheduler: FakeScheduler;
    let mount: string;

    beforeAll(async () => {
      site = await TestSite.open();
      scheduler = await site.scheduler();
      mount = site.path("small");
      mkdirSync(mount);
      const size = `size=${24 * mebibyte}`;
      expect(Bun.spawnSync(["mount", "-t", "tmpfs", "-o", size, "tmpfs", mount]).exitCode).toBe(0);
      // Undone last: after the agents on it.
      site.later(() => Bun.spawnSync(["umount", "-l", mount]));
    });

    afterAll(() => site[Symbol.asyncDispose]());

    test("rule 9: it is stopped by a scheduler of a new epoch, and by the next agent after kill -9", async () => {
      const options = site.options(scheduler.url, { runtimeDirectory: join(mount, "run"), onStop: "keep" });
      const first = await site.spawnAgent(options);
      // Again and again: what the agent frees for itself is taken as well.
      const fill =
        "(while :; do cat /dev/zero >> $HOME/fill; sleep 0.05; done) 2>/dev/null & exec bun hello.ts";
      const filler = await first.t.start("", { command: ["sh", "-c", fill] });
      expect(filler.state).toBe(InstanceState.READY);
      await waitUntil(() => freeBytes(mount) === 0, { deadlineMs: 10_000, what: "it is full" });
      await first.kill();
      const second = await site.agent(scheduler.url, options);
      expect((await second.list()).map((one) => one.pid)).toEqual([filler.pid]);
      second.epoch = 7n;
      const ended = await second.stop(filler.ref!.id, ExitReason.KILLED, 0);
      expect(ended?.exit?.reason).toBe(ExitReason.KILLED);
      expect(isAlive(filler.pid)).toBe(false);
      // With the room back the node serves again, and an older scheduler is refused.
      await waitUntil(() => freeBytes(mount) > 8 * mebibyte, { deadlineMs: 10_000 });
      const next = await second.start("hello.ts");
      expect(next.state).toBe(InstanceState.READY);
      await second.stop(next.ref!.id);
      expect((await scheduler.untilExited(filler.ref!.id)).exit?.reason).toBe(ExitReason.KILLED);
      await second.agent.stop();
    });
  },
);

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}
