/** Opens a stream, closes its connection at once, and lives on for longer than the ping interval. */
import { SchedulerService } from "@warren/proto/scheduler";
import { connectRpc } from "../src/rpc/client.ts";
import { loadCredentials } from "../src/rpc/credentials.ts";
import { rpcLimits } from "../src/rpc/limits.ts";
import { pause } from "../src/time.ts";

// As our processes do; Bun by itself would print it and go on.
process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(1);
});

const [url, directory] = process.argv.slice(2) as [string, string];
const connection = connectRpc({ url, credentials: loadCredentials(directory) });
let seen = 0;
try {
  for await (const _ of connection.client(SchedulerService).watchEvents({}))
    if (++seen === 3) connection.close();
} catch {
  // the stream ends with its connection: that is what was asked for
}
await pause(rpcLimits.pingIntervalMs + 1_000);
console.log("fine");
process.exit(0);
