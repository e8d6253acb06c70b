// An agent that kills itself with SIGKILL at the n-th thing that it does to the host, before or after doing it.
// Options as JSON on stdin, with `crash: {at, when}`; says where it serves, on stdout.
import { EndedIds } from "../src/ended.ts";
import { CgroupV2Host } from "../src/host/cgroup2.ts";
import { startAgent } from "../src/index.ts";
import { LogStore } from "../src/logs.ts";
import { Ports } from "../src/ports.ts";
import { RecordStore } from "../src/records.ts";
import { bunSpawner } from "../src/spawn.ts";
import { Spool } from "../src/spool.ts";
import { silent } from "../test/support.ts";

const { crash, ...options } = JSON.parse(await Bun.stdin.text()) as {
  crash: { at: number; when: "before" | "after" };
} & Parameters<typeof startAgent>[0];

let step = Number.NEGATIVE_INFINITY;
function guarded<T>(work: () => T): T {
  const isIt = ++step === crash.at;
  if (isIt && crash.when === "before") process.kill(process.pid, "SIGKILL");
  const done = work();
  if (isIt && crash.when === "after") process.kill(process.pid, "SIGKILL");
  return done;
}

for (const [type, methods] of [
  [RecordStore, ["save", "remove"]],
  [Spool, ["append"]],
  [EndedIds, ["add"]],
  [Ports, ["take", "release"]],
  [LogStore, ["open", "ended"]],
  [CgroupV2Host, ["createGroup"]],
] as const) {
  for (const method of methods) {
    const prototype = type.prototype as unknown as Record<string, (...args: unknown[]) => unknown>;
    const original = prototype[method]!;
    prototype[method] = function (this: unknown, ...args: unknown[]) {
      return guarded(() => original.apply(this, args));
    };
  }
}

const agent = await startAgent({
  ...options,
  log: silent,
  spawner: (kernel) => {
    const spawner = bunSpawner(kernel);
    return { spawn: (plan) => guarded(() => spawner.spawn(plan)) };
  },
});
step = 0; // only what it does once it serves
console.log(JSON.stringify({ url: agent.url, incarnation: agent.incarnation }));
