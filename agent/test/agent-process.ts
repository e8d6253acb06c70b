// An agent in a process of its own, for tests that kill it. Options as JSON on stdin; says where it serves, on stdout.
import { startAgent } from "../src/index.ts";
import { silent } from "./support.ts";

const agent = await startAgent({ ...JSON.parse(await Bun.stdin.text()), log: silent });
console.log(JSON.stringify({ url: agent.url, incarnation: agent.incarnation }));
process.on("SIGTERM", async () => {
  await agent.stop();
  process.exit(0);
});
