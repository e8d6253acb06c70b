// An agent in a process of its own, so that its memory and its CPU are its own. Its settings are its argument; when its
// stdin ends, because its bench is done or is gone, it stops its tenants and ends.
import { startAgent } from "@warren/agent";
import { createLogger } from "@warren/common/log";
import { loadCredentials } from "@warren/common/rpc/credentials";
import type { NodeSettings } from "./site.ts";

const { credentials, ...settings } = JSON.parse(process.argv[2]!) as NodeSettings;
process.stdin.on("data", () => {});
const ended = new Promise((resolve) => process.stdin.on("end", resolve));
const agent = await startAgent({
  ...settings,
  credentials: loadCredentials(credentials),
  port: 0,
  capacity: { memoryBytes: 64 * 2 ** 30, cpuMillis: 64_000, maxInstances: 0 },
  allowDirectories: true,
  onStop: "stop",
  log: createLogger({ process: "agent", node: settings.node, level: "warn" }),
});
process.stdout.write(`${agent.url}\n`);
await ended;
await agent.stop();
process.exit(0);
