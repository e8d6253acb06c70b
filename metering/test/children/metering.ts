/** A metering process that can be killed; says its URL. */
import { createLogger } from "@warren/common/log";
import { loadCredentials } from "@warren/common/rpc/credentials";
import { startMetering } from "@warren/metering";

const { credentials, ...rest } = JSON.parse(process.argv[2] ?? "");
const { url } = await startMetering({
  ...rest,
  port: 0,
  credentials: loadCredentials(credentials),
  log: createLogger({ process: "metering" }),
});
console.log(url);
