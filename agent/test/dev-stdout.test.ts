/** What programs do that are told to log to /dev/stdout: they open it, and many empty it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, cpSync } from "node:fs";
import { ExitReason, Isolation } from "@warren/proto/common";
import { fixtures, type TestAgent, TestSite } from "./support.ts";

const { NONE, USER, CGROUP, NAMESPACE } = Isolation;
const isRoot = process.getuid?.() === 0;

// The lines before an open that empties the file can only be saved where the kernel asks first, which is root's to have.
describe.skipIf(!isRoot)("output that is opened anew (needs root)", () => {
  let site: TestSite;
  let t: TestAgent;
  beforeAll(async () => {
    site = await TestSite.open();
    chmodSync(site.directory, 0o755);
    cpSync(fixtures, site.path("apps"), { recursive: true });
    t = await site.agent((await site.scheduler()).url, { isolation: "auto" });
  });
  afterAll(() => site[Symbol.asyncDispose]());

  test.each([NONE, USER, CGROUP, NAMESPACE])(
    "on isolation level %i it can be, and no line is lost",
    async (isolation) => {
      const instance = await t.start("reopening.ts", {
        source: { case: "directory", value: site.path("apps") },
        isolation,
      });
      const { host, port } = instance.endpoint!;
      const answer = await fetch(`http://${host}:${port}/`, { signal: AbortSignal.timeout(20_000) });
      const { failed, ways } = (await answer.json()) as { failed: string[]; ways: string[] };
      expect(failed).toEqual([]);
      await t.stop(instance.ref!.id, ExitReason.KILLED);
      const lines: string[] = [];
      for await (const batch of t.rpc.streamLogs({ instance: instance.ref!.id, tail: 10_000 })) {
        lines.push(...batch.lines.map(({ text }) => text));
      }
      const expected = ways.flatMap((way) => [
        ...Array.from({ length: 50 }, (_, i) => `before-${way} ${i}`),
        ...Array.from({ length: 50 }, (_, i) => `after-${way} ${i}`),
        ...(way === "own-place"
          ? [0, 1, 2, 3, 4].flatMap((i) => [`own-place ${i}`, `between ${i}`])
          : [`by-${way}`]),
      ]);
      expect(lines.filter((line) => !line.startsWith("[warren] ")).sort()).toEqual(expected.sort());
    },
  );
});
