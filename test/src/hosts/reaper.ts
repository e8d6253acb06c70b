/**
 * Removes a site as soon as its test closes our input, or is gone: however a test ends, a crash and Ctrl-C included, the
 * kernel closes that pipe.
 *
 *     bun test/src/hosts/reaper.ts DIRECTORY
 */
import { removeSite } from "./remains.ts";

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
for await (const _ of Bun.stdin.stream());
await removeSite(process.argv[2]!);
