/**
 * `make demo`: a whole cell with real tenants, every step told. ONCE=1 verifies each step, stops everything, checks that
 * nothing is left, and ends with "demo: ok". NATS_URL=… runs the same on JetStream.
 */
import { existsSync } from "node:fs";
import pc from "picocolors";
import { example, startCell } from "../cell.ts";
import { steps } from "./steps.ts";
import { ms, Told } from "./told.ts";

const once = process.env.ONCE === "1";
const natsUrl = process.env.NATS_URL;

const interrupted = new Promise<"interrupted">((resolve) => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    let asked = 0;
    process.on(signal, () => {
      if (++asked > 1) process.exit(130);
      resolve("interrupted");
    });
  }
});

const told = new Told();
told.title(`Warren: three nodes, real tenants, on ${natsUrl ? "NATS JetStream" : "the embedded store"}`);
const begun = performance.now();
const cell = await startCell({
  nodes: 3,
  natsUrl,
  maxConcurrent: 4,
  minResidence: "300ms",
  plansFile: example("plans.yaml"),
  gatewayPort: once ? 0 : Number(process.env.PORT ?? 8080),
  onEvent: (event) =>
    told.note(
      `${event.name} ${event.kind === "failing" ? `fails: ${event.message}` : event.kind === "back" ? "serves again" : "has ended; it is started again"}`,
    ),
  onReady: (child) => told.note(`${child.name.padEnd(10)} ${child.facts.url}`),
}).catch((error: Error) => {
  console.error(`${pc.red("demo:")} the cell did not come up: ${error.message}`);
  process.exit(1);
});
told.saw(`a scheduler, three agents, a gateway and metering are up after ${ms(performance.now() - begun)}`);

let failed: unknown;
try {
  const outcome = await Promise.race([steps(cell, told), interrupted]);
  if (outcome !== "interrupted" && !once) {
    const { cluster } = cell.cell;
    const root = `--state ${cell.state}`;
    told.title("It stays up until Ctrl-C. Try");
    for (const line of [
      `curl ${cell.url("hello")}`,
      `curl -N ${cell.url("live", "/events")}`,
      `cli/bin/warren ps ${root}`,
      `cli/bin/warren events -f ${root}`,
      `cli/bin/warren logs -f crashy ${root}`,
      `cli/bin/warren usage ${root}`,
      `cli/bin/warren deploy examples/hello --name mine ${root}   # then: curl http://mine.${new URL(cluster.gateway).host}`,
    ]) {
      console.log(`  ${line}`);
    }
    await interrupted;
  } else if (outcome === "interrupted" && once) failed = new Error("interrupted");
} catch (error) {
  failed = error;
}

told.title("Stopping");
await cell.stop();
const left = cell.left();
if (left.length) failed ??= new Error(`processes are left: ${left.map(({ pid }) => pid).join(", ")}`);
else told.saw("no process of the cell or of a tenant is left");
if (existsSync(cell.state)) failed ??= new Error(`${cell.state} is left`);

if (failed) {
  console.error(`${pc.red("demo: failed:")} ${(failed as Error).stack ?? failed}`);
  process.exit(1);
}
if (once) console.log("demo: ok");
process.exit(0);
