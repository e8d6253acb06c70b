/**
 * A tenant whose use is known: it holds memory, burns CPU at a steady rate, and answers with as many bytes as it is asked
 * for. Whoever keeps the truth finds it by a file with its pid.
 */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const source = `import { renameSync, writeFileSync } from "node:fs";
const { TRUTH, KEY, WARREN_INSTANCE, MIB, BURN_MS, PORT } = process.env;
const place = TRUTH + "/" + WARREN_INSTANCE;
writeFileSync(place + ".new", process.pid + " " + KEY);
renameSync(place + ".new", place);
const held = Buffer.alloc(Number(MIB) * 2 ** 20, 1);
setInterval(() => {
  const until = process.cpuUsage().user + Number(BURN_MS) * 1000;
  while (process.cpuUsage().user < until) held[Math.floor(Math.random() * held.length)]++;
}, 1000);
Bun.serve({
  port: PORT,
  fetch: (request) => new Response("x".repeat(Number(new URL(request.url).searchParams.get("bytes") ?? 1))),
});
`;

export interface KnownApp {
  /** What tenants run from. */
  readonly directory: string;
  /** Where they say that they are; in the environment as TRUTH. */
  readonly truth: string;
}

/** Where processes of any user can read the one and write the other. */
export function writeKnownApp(parent: string): KnownApp {
  const directory = join(parent, "app");
  const truth = join(parent, "truth");
  mkdirSync(directory);
  mkdirSync(truth);
  chmodSync(parent, 0o755);
  chmodSync(truth, 0o1777);
  writeFileSync(join(directory, "index.ts"), source);
  writeFileSync(join(directory, "package.json"), JSON.stringify({ name: "known", module: "index.ts" }));
  return { directory, truth };
}
