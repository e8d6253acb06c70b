// An agent in a process of its own, for tests that kill it. Options as JSON on stdin; says where it serves, on stdout.
import { startAgent } from "../src/index.ts";
import { silent } from "./support.ts";

const agent = await startAgent({ ...JSON.parse(await Bun.stdin.text()), log: silent });
console.log(JSON.stringify({ url: agent.url, incarnation: agent.incarnation }));
// So that what is measured of it is what it holds, not what it has not collected yet.
process.on("SIGUSR2", () => Bun.gc(true));
process.on("SIGTERM", async () => {
  await agent.stop();
  process.exit(0);
});
