/** Opens a stream, closes its connection at once, and lives on for longer than the ping interval. */
import { SchedulerService } from "@warren/proto/scheduler";
import { connectRpc } from "../src/rpc/client.ts";
import { loadCredentials } from "../src/rpc/credentials.ts";
import { rpcLimits } from "../src/rpc/limits.ts";
import { pause } from "../src/time.ts";

const [url, credentials] = process.argv.slice(2);
const connection = connectRpc({ url: url!, credentials: loadCredentials(credentials!) });
let seen = 0;
try {
  for await (const _ of connection.client(SchedulerService).watchEndpoints({ gateway: "g" })) {
    if (++seen === 3) connection.close();
  }
} catch {
  // the stream ends with its connection: that is what was asked for
}
await pause(rpcLimits.pingIntervalMs + 1_000);
console.log("fine");
